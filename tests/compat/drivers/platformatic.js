// @platformatic/kafka 1.35
import { randomUUID } from "node:crypto";
import {
  Admin, AclOperations, AclPermissionTypes, ConfigResourceTypes, Consumer, IncrementalAlterConfigOperationTypes, MessagesStreamFallbackModes,
  MessagesStreamModes, Producer, ResourcePatternTypes, ResourceTypes, stringDeserializers, stringSerializers,
} from "@platformatic/kafka";
import { eventually, HEARTBEAT_MS, serve, SESSION_TIMEOUT_MS, text, tls, TIMEOUT_MS } from "./common.js";

// Without them it says that it is producer 0 of epoch 0, and is fenced where the transactional id has been used before.
const NEW = { producerId: -1n, producerEpoch: -1 };
let base;
const producers = {}; // name: { producer, transaction }
const members = {};

async function admin(work) {
  const client = new Admin(base);
  try { return await work(client); } finally { await client.close(); }
}

const record = ({ partition, offset, key, value, headers }) => [
  partition, Number(offset), text(key), text(value), [...headers].map(([name, content]) => [text(name), text(content)]),
];

function newConsumer(group, instance, protocol) {
  const classic = { sessionTimeout: SESSION_TIMEOUT_MS, heartbeatInterval: HEARTBEAT_MS, rebalanceTimeout: 10_000 };
  return new Consumer({
    ...base, groupId: group, groupInstanceId: instance || undefined, deserializers: stringDeserializers, maxWaitTime: 200,
    ...(protocol === "consumer" ? { groupProtocol: "consumer" } : classic),
  });
}

async function start({ topic, group, instance, protocol, ...more }) {
  const consumer = newConsumer(group, instance, protocol);
  const state = { consumer, records: [], failure: undefined };
  state.stream = await consumer.consume({
    topics: [topic], mode: MessagesStreamModes.COMMITTED, fallbackMode: MessagesStreamFallbackModes.EARLIEST, autocommit: 100, ...more,
  });
  state.stream.on("data", (message) => { state.records.push(record(message)); });
  state.stream.on("error", (error) => { state.failure = error; });
  return state;
}

async function stop({ consumer, stream }) {
  await stream.close();
  await consumer.close(true);
}

await serve({
  connect({ bootstrap, security }) {
    const { mechanism, username, password, token } = security;
    const sasl = mechanism && { mechanism, username, password, token };
    base = { clientId: `compat-${randomUUID()}`, bootstrapBrokers: [bootstrap], retries: 3, ...(sasl && { sasl }), ...(tls(security) && { tls: tls(security) }) };
  },

  // topics
  create_topic: ({ topic, partitions }) => admin(async (client) => { await client.createTopics({ topics: [topic], partitions, replicas: 1 }); }),
  list_topics: () => admin((client) => client.listTopics()),
  create_partitions: ({ topic: name, count }) => admin((client) => client.createPartitions({ topics: [{ name, count, assignments: null }] })),
  delete_topic: ({ topic }) => admin((client) => client.deleteTopics({ topics: [topic] })),

  // records
  async producer({ name, codec = "none", idempotent = true, transactional_id: transactionalId }) {
    const producer = new Producer({
      ...base, serializers: stringSerializers, idempotent, acks: -1, compression: codec, ...(transactionalId && { transactionalId }),
    });
    if (transactionalId) await producer.initIdempotentProducer(NEW);
    producers[name] = { producer };
  },
  async send({ name, topic, partition, records }) {
    const { producer, transaction } = producers[name];
    const messages = records.map(([key, value, headers]) => ({
      topic, partition, key: key ?? undefined, value: value ?? undefined, headers: new Map(headers),
    }));
    const { offsets } = await (transaction ?? producer).send({ messages });
    return messages.map((_, index) => Number(offsets[0].offset) + index);
  },
  close_producer: ({ name }) => producers[name].producer.close(true),
  async begin({ name }) { producers[name].transaction = await producers[name].producer.beginTransaction(NEW); },
  async commit({ name }) { await producers[name].transaction.commit(); delete producers[name].transaction; },
  async abort({ name }) { await producers[name].transaction.abort(); delete producers[name].transaction; },
  async read({ topic, start: from, count, committed, timeout_s: timeoutS }) {
    let offset = BigInt(from.offset ?? 0);
    if ("time_ms" in from) {
      const partitions = [{ partitionIndex: 0, timestamp: BigInt(from.time_ms) }];
      const [found] = await admin((client) => client.listOffsets({ topics: [{ name: topic, partitions }] }));
      offset = found.partitions[0].offset;
    }
    const state = await start({
      topic, group: `read-${randomUUID()}`, isolationLevel: committed ? 1 : 0, autocommit: false,
      ...("beginning" in from ? { mode: MessagesStreamModes.EARLIEST }
        : { mode: MessagesStreamModes.MANUAL, offsets: [{ topic, partition: 0, offset }], fallbackMode: undefined }),
    });
    await eventually(() => state.records.length >= count || state.failure, timeoutS * 1000);
    if (state.failure) throw state.failure;
    await stop(state);
    return state.records;
  },

  // groups
  async member({ name, topic, group, instance, protocol }) { members[name] = await start({ topic, group, instance, protocol }); },
  state({ name }) {
    const { consumer, records, failure } = members[name];
    if (failure) throw failure;
    members[name].records = [];
    return { assigned: (consumer.assignments ?? []).flatMap(({ partitions }) => partitions), records };
  },
  async leave({ name }) {
    await stop(members[name]);
    return members[name].records;
  },
  async copy({ source, target, group, transactional_id: transactionalId, count, leave_open: leaveOpen }) {
    const producer = new Producer({ ...base, serializers: stringSerializers, idempotent: true, acks: -1, transactionalId });
    const consumer = newConsumer(group);
    const stream = await consumer.consume({
      topics: [source], mode: MessagesStreamModes.COMMITTED, fallbackMode: MessagesStreamFallbackModes.EARLIEST, autocommit: false,
    });
    let copied = 0;
    for await (const message of stream) {
      const transaction = await producer.beginTransaction(NEW);
      await transaction.addConsumer(consumer);
      await transaction.send({ messages: [{ topic: target, partition: 0, key: message.key, value: message.value }] });
      await transaction.addOffset(message);
      copied += 1;
      if (leaveOpen && copied >= count) return copied;
      await transaction.commit();
      if (copied >= count) break;
    }
    await stop({ consumer, stream });
    await producer.close(true);
    return copied;
  },

  // administration
  describe_config: ({ topic: resourceName }) => admin(async (client) => {
    const [{ configs }] = await client.describeConfigs({ resources: [{ resourceType: ConfigResourceTypes.TOPIC, resourceName, configurationKeys: null }] });
    return Object.fromEntries(configs.map(({ name, value }) => [name, value]));
  }),
  alter_config: ({ topic: resourceName, key: name, value }) => admin((client) => client.incrementalAlterConfigs({
    resources: [{ resourceType: ConfigResourceTypes.TOPIC, resourceName, configs: [{ name, value, configOperation: IncrementalAlterConfigOperationTypes.SET }] }],
  })),
  list_groups: () => admin(async (client) => [...(await client.listGroups()).keys()]),
  describe_group: ({ group }) => admin(async (client) => {
    const described = (await client.describeGroups({ groups: [group] })).get(group);
    return { state: described.state.toLowerCase(), members: described.members.size };
  }),
  committed: ({ group, topic }) => admin(async (client) => {
    const [{ topics }] = await client.listConsumerGroupOffsets({ groups: [group] });
    const { partitions } = topics.find(({ name }) => name === topic) ?? { partitions: [] };
    return Object.fromEntries(partitions.map(({ partitionIndex, committedOffset }) => [partitionIndex, Number(committedOffset)]));
  }),
  delete_group: ({ group }) => admin((client) => client.deleteGroups({ groups: [group] })),
  delete_records: ({ topic: name, before }) => admin(async (client) => {
    const [deleted] = await client.deleteRecords({ topics: [{ name, partitions: [{ partition: 0, offset: BigInt(before) }] }] });
    return Number(deleted.partitions[0].lowWatermark);
  }),
  acls: ({ topic: resourceName, principal }) => admin(async (client) => {
    const rule = {
      resourceType: ResourceTypes.TOPIC, resourceName, principal, host: "*", operation: AclOperations.READ,
      permissionType: AclPermissionTypes.ALLOW,
    };
    await client.createAcls({ creations: [{ ...rule, resourcePatternType: ResourcePatternTypes.LITERAL }] });
    const filter = { ...rule, patternType: ResourcePatternTypes.LITERAL, resourcePatternType: ResourcePatternTypes.LITERAL };
    const resources = await client.describeAcls({ filter });
    const deleted = await client.deleteAcls({ filters: [filter] });
    return [1, resources.flatMap(({ acls }) => acls).length, deleted.length];
  }),
});
