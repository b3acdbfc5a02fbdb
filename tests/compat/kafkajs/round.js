// One round of kafkajs against a broker: create, produce with each codec it has, consume, a group of two through a rebalance, commit,
// resume. Prints one JSON object of what it saw; the test judges it.
import { randomUUID } from "node:crypto";
import kafkajs from "kafkajs";

const { CompressionTypes, Kafka, logLevel } = kafkajs;
const kafka = new Kafka({ clientId: "compat", brokers: [process.argv[2]], logLevel: logLevel.ERROR });
const PARTITIONS = 4;
const TIMEOUT_MS = 60_000;
const seen = {};

async function eventually(what, condition) {
  const deadline = Date.now() + TIMEOUT_MS;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function produce(topic, codec, from, until, partitions = 1) {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  for (let partition = 0; partition < partitions; partition++) {
    const messages = [];
    for (let number = from; number < until; number++) {
      messages.push({ partition, key: `key-${number % 7}`, value: `value ${number}`, headers: { n: `${number}` } });
    }
    await producer.send({ topic, acks: -1, compression: codec, messages });
  }
  await producer.disconnect();
}

async function member(topic, groupId) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10_000, heartbeatInterval: 500, rebalanceTimeout: 10_000 });
  const state = { got: [], assignment: [], consumer };
  consumer.on(consumer.events.GROUP_JOIN, (event) => { state.assignment = event.payload.memberAssignment[topic] ?? []; });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      state.got.push([partition, Number(message.offset), message.key?.toString(), message.value?.toString(), message.headers?.n?.toString()]);
    },
  });
  return state;
}

const admin = kafka.admin();
await admin.connect();
for (const [name, codec] of [["none", CompressionTypes.None], ["gzip", CompressionTypes.GZIP]]) {
  const topic = `kafkajs-${name}-${randomUUID().slice(0, 8)}`;
  await admin.createTopics({ topics: [{ topic, numPartitions: 1 }], waitForLeaders: true });
  await produce(topic, codec, 0, 300);
  const reader = await member(topic, `read-${topic}`);
  await eventually(`${name} read back`, () => reader.got.length >= 300);
  await reader.consumer.disconnect();
  seen[name] = reader.got;
}
const topic = `kafkajs-group-${randomUUID().slice(0, 8)}`;
await admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS }], waitForLeaders: true });
await produce(topic, CompressionTypes.None, 0, 50, PARTITIONS);
const first = await member(topic, topic);
await eventually("the first member owns all", () => first.assignment.length === PARTITIONS && first.got.length === 50 * PARTITIONS);
const second = await member(topic, topic);
await eventually("shared", () => first.assignment.length === 2 && second.assignment.length === 2);
seen.shared = [first.assignment, second.assignment];
await produce(topic, CompressionTypes.None, 50, 100, PARTITIONS);
await eventually("both read", () => first.got.length + second.got.length >= 100 * PARTITIONS);
await second.consumer.disconnect();
await eventually("taken over", () => first.assignment.length === PARTITIONS);
await first.consumer.disconnect();
seen.group = [...first.got, ...second.got].map(([partition, offset]) => [partition, offset]);
await produce(topic, CompressionTypes.None, 100, 110, PARTITIONS);
const third = await member(topic, topic);
await eventually("resumed", () => third.got.length >= 10 * PARTITIONS);
await third.consumer.disconnect();
seen.resumed = third.got.map(([partition, offset]) => [partition, offset]);
seen.offsets = await admin.fetchOffsets({ groupId: topic, topics: [topic] });
await admin.deleteGroups([topic]);
await admin.deleteTopics({ topics: [topic] });
await admin.disconnect();
console.log(JSON.stringify(seen));
