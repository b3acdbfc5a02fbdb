// kafkajs 2.2
import { randomUUID } from "node:crypto";
import kafkajs from "kafkajs";
import { eventually, HEARTBEAT_MS, serve, SESSION_TIMEOUT_MS, text, tls, TIMEOUT_MS } from "./common.js";

const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, CompressionTypes, ConfigResourceTypes, Kafka, logLevel, ResourcePatternTypes } = kafkajs;
let kafka;
const producers = {}; // name: { producer, codec, transaction }
const members = {};

async function admin(work) {
  const client = kafka.admin();
  await client.connect();
  try { return await work(client); } finally { await client.disconnect(); }
}

const record = (partition, message) => [
  partition, Number(message.offset), text(message.key), text(message.value),
  Object.entries(message.headers ?? {}).map(([name, value]) => [name, text(value)]),
];

async function start({ topic, group, committed = true, eachBatch, ...more }) {
  const consumer = kafka.consumer({
    groupId: group, sessionTimeout: SESSION_TIMEOUT_MS, heartbeatInterval: HEARTBEAT_MS, rebalanceTimeout: 10_000,
    maxWaitTimeInMs: 200, readUncommitted: !committed,
  });
  const state = { consumer, assigned: [], records: [], joined: false };
  consumer.on(consumer.events.GROUP_JOIN, (event) => { state.assigned = event.payload.memberAssignment[topic] ?? []; state.joined = true; });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  const eachMessage = async ({ partition, message }) => { state.records.push(record(partition, message)); };
  await consumer.run(eachBatch ? { autoCommit: false, eachBatch, ...more } : { eachMessage, autoCommitInterval: 100, ...more });
  return state;
}

await serve({
  connect({ bootstrap, security }) {
    const mechanism = security.mechanism?.toLowerCase();
    const oauth = security.token && { oauthBearerProvider: async () => ({ value: security.token }) };
    const sasl = mechanism && { mechanism, username: security.username, password: security.password, ...oauth };
    const retry = { retries: 4 }; // a refused password is to be reported before the test gives up
    kafka = new Kafka({ clientId: "compat", brokers: [bootstrap], logLevel: logLevel.NOTHING, ssl: tls(security), sasl, retry });
  },

  // topics
  create_topic: ({ topic, partitions }) => admin((client) => client.createTopics({ topics: [{ topic, numPartitions: partitions }] })),
  list_topics: () => admin((client) => client.listTopics()),
  create_partitions: ({ topic, count }) => admin((client) => client.createPartitions({ topicPartitions: [{ topic, count }] })),
  delete_topic: ({ topic }) => admin((client) => client.deleteTopics({ topics: [topic] })),

  // records
  async producer({ name, codec = "none", idempotent = true, transactional_id: transactionalId }) {
    const producer = kafka.producer({ idempotent, maxInFlightRequests: 1, transactionalId: transactionalId || undefined });
    await producer.connect();
    producers[name] = { producer, codec: codec === "gzip" ? CompressionTypes.GZIP : CompressionTypes.None };
  },
  async send({ name, topic, partition, records }) {
    const { producer, codec, transaction } = producers[name];
    const messages = records.map(([key, value, headers]) => ({ partition, key, value, headers: Object.fromEntries(headers) }));
    const [{ baseOffset }] = await (transaction ?? producer).send({ topic, acks: -1, compression: codec, messages });
    return messages.map((_, index) => Number(baseOffset) + index);
  },
  close_producer: ({ name }) => producers[name].producer.disconnect(),
  async begin({ name }) { producers[name].transaction = await producers[name].producer.transaction(); },
  async commit({ name }) { await producers[name].transaction.commit(); delete producers[name].transaction; },
  async abort({ name }) { await producers[name].transaction.abort(); delete producers[name].transaction; },
  async read({ topic, start: from, count, committed, timeout_s: timeoutS }) {
    const state = await start({ topic, group: `read-${randomUUID()}`, committed });
    if ("time_ms" in from || "offset" in from) {
      const found = "time_ms" in from && (await admin((client) => client.fetchTopicOffsetsByTimestamp(topic, from.time_ms)));
      const offset = found ? found.find(({ partition }) => partition === 0).offset : `${from.offset}`;
      state.consumer.seek({ topic, partition: 0, offset });
      // It seeks while it runs, so that some of the records before the place, and some behind it twice, may come as well.
      const behind = () => [...new Map(state.records.filter((entry) => entry[1] >= Number(offset)).map((entry) => [entry[1], entry])).values()];
      await eventually(() => behind().length >= count, timeoutS * 1000);
      state.records = behind();
    } else {
      await eventually(() => state.records.length >= count, timeoutS * 1000);
    }
    await state.consumer.disconnect();
    return state.records;
  },

  // groups
  async member({ name, topic, group }) { members[name] = await start({ topic, group }); },
  state({ name }) {
    const { assigned, records } = members[name];
    members[name].records = [];
    return { assigned, records };
  },
  async leave({ name }) {
    await members[name].consumer.disconnect();
    return members[name].records;
  },
  async copy({ source, target, group, transactional_id: transactionalId, count, leave_open: leaveOpen }) {
    const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, transactionalId });
    await producer.connect();
    let copied = 0, failure;
    const state = await start({
      topic: source, group, eachBatchAutoResolve: false,
      eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
        for (let from = 0; from < batch.messages.length && copied < count; from += 10) {
          const some = batch.messages.slice(from, from + 10);
          const offset = `${Number(some.at(-1).offset) + 1}`;
          const transaction = await producer.transaction();
          try {
            await transaction.send({ topic: target, messages: some.map(({ key, value }) => ({ key, value, partition: 0 })) });
            const topics = [{ topic: source, partitions: [{ partition: batch.partition, offset }] }];
            await transaction.sendOffsets({ consumerGroupId: group, topics });
            copied += some.length;
            if (leaveOpen && copied >= count) return;
            await transaction.commit();
          } catch (error) { failure = error; return; }
          resolveOffset(some.at(-1).offset);
          await heartbeat();
        }
      },
    });
    await eventually(() => copied >= count || failure, TIMEOUT_MS);
    if (failure) throw failure;
    if (!leaveOpen) await state.consumer.disconnect();
    return copied;
  },

  // administration
  describe_config: ({ topic: name }) => admin(async (client) => {
    const { resources } = await client.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name }] });
    return Object.fromEntries(resources[0].configEntries.map((entry) => [entry.configName, entry.configValue]));
  }),
  alter_config: ({ topic: name, key, value }) => admin((client) => client.alterConfigs({
    resources: [{ type: ConfigResourceTypes.TOPIC, name, configEntries: [{ name: key, value }] }],
  })),
  list_groups: () => admin(async (client) => (await client.listGroups()).groups.map(({ groupId }) => groupId)),
  describe_group: ({ group }) => admin(async (client) => {
    const { groups: [described] } = await client.describeGroups([group]);
    return { state: described.state.toLowerCase(), members: described.members.length };
  }),
  committed: ({ group: groupId, topic }) => admin(async (client) => {
    const [{ partitions }] = await client.fetchOffsets({ groupId, topics: [topic] });
    return Object.fromEntries(partitions.map(({ partition, offset }) => [partition, Number(offset)]));
  }),
  delete_group: ({ group }) => admin((client) => client.deleteGroups([group])),
  delete_records: ({ topic, before }) => admin(async (client) => {
    await client.fetchTopicOffsets(topic); // loads the metadata that the next call wants
    await client.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: `${before}` }] });
    const [{ low }] = await client.fetchTopicOffsets(topic);
    return Number(low);
  }),
  acls: ({ topic, principal }) => admin(async (client) => {
    const rule = {
      resourceType: AclResourceTypes.TOPIC, resourceName: topic, resourcePatternType: ResourcePatternTypes.LITERAL, principal, host: "*",
      operation: AclOperationTypes.READ, permissionType: AclPermissionTypes.ALLOW,
    };
    const created = (await client.createAcls({ acl: [rule] })) ? 1 : 0;
    const { resources } = await client.describeAcls(rule);
    const { filterResponses: [{ matchingAcls }] } = await client.deleteAcls({ filters: [rule] });
    return [created, resources.flatMap(({ acls }) => acls).length, matchingAcls.length];
  }),
});
