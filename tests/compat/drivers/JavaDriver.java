// Kafka's own Java clients. The line protocol is that of common.py.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class JavaDriver {
    static final ObjectMapper JSON = new ObjectMapper();
    static final long TIMEOUT_S = 60;
    static final Map<String, Object> base = new HashMap<>();
    static final Map<String, KafkaProducer<String, String>> producers = new HashMap<>();
    static final Map<String, Member> members = new HashMap<>();
    static Admin admin;

    public static void main(String[] arguments) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = in.readLine()) != null; ) {
            Map<String, Object> answer = new HashMap<>();
            try {
                answer.put("ok", answer(JSON.readTree(line)));
            } catch (Throwable error) {
                Throwable cause = error instanceof java.util.concurrent.ExecutionException ? error.getCause() : error;
                answer.put("error", cause.toString());
            }
            out.println(JSON.writeValueAsString(answer));
            out.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    static Object answer(JsonNode request) throws Exception {
        String topic = request.path("topic").asText(null), name = request.path("name").asText(null);
        String group = request.path("group").asText(null);
        switch (request.get("op").asText()) {
            case "connect": return connect(request.get("bootstrap").asText(), request.get("security"));
            case "create_topic":
                return done(admin().createTopics(List.of(new NewTopic(topic, request.get("partitions").asInt(), (short) 1))).all());
            case "list_topics": return get(admin().listTopics().names());
            case "create_partitions":
                return done(admin().createPartitions(Map.of(topic, NewPartitions.increaseTo(request.get("count").asInt()))).all());
            case "delete_topic": return done(admin().deleteTopics(List.of(topic)).all());
            case "producer": return producer(request);
            case "send": return send(producers.get(name), topic, request.get("partition").asInt(), request.get("records"));
            case "close_producer": producers.remove(name).close(); return null;
            case "begin": producers.get(name).beginTransaction(); return null;
            case "commit": producers.get(name).commitTransaction(); return null;
            case "abort": producers.get(name).abortTransaction(); return null;
            case "read": return read(topic, request);
            case "member": members.put(name, new Member(topic, consumer(request))); return null;
            case "state": return members.get(name).state();
            case "leave": return members.remove(name).leave();
            case "copy": return copy(request);
            case "describe_config": return describeConfig(topic);
            case "alter_config":
                return done(admin().incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, topic), List.of(
                    new AlterConfigOp(new ConfigEntry(request.get("key").asText(), request.get("value").asText()), AlterConfigOp.OpType.SET)))).all());
            case "list_groups": return get(admin().listGroups().all()).stream().map(GroupListing::groupId).toList();
            case "describe_group":
                ConsumerGroupDescription described = get(admin().describeConsumerGroups(List.of(group)).all()).get(group);
                return Map.of("state", described.groupState().toString().toLowerCase(), "members", described.members().size());
            case "committed": return committed(group, topic);
            case "delete_group": return done(admin().deleteConsumerGroups(List.of(group)).all());
            case "delete_records":
                TopicPartition place = new TopicPartition(topic, 0);
                return get(admin().deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(request.get("before").asLong())))
                    .lowWatermarks().get(place)).lowWatermark();
            case "acls": return acls(topic, request.get("principal").asText());
            case "scram_user": return scramUser(request.get("user").asText(), request.get("password").asText(), request.get("mechanism").asText());
            default: throw new UnsupportedOperationException(request.get("op").asText());
        }
    }

    static Object connect(String bootstrap, JsonNode security) throws Exception {
        base.clear();
        admin = null;
        base.put("bootstrap.servers", bootstrap);
        if (security.has("protocol")) base.put("security.protocol", security.get("protocol").asText());
        if (security.has("ca")) {
            base.put("ssl.truststore.type", "PEM");
            base.put("ssl.truststore.location", security.get("ca").asText());
        }
        if (security.has("certificate")) {
            base.put("ssl.keystore.type", "PEM");
            base.put("ssl.keystore.certificate.chain", Files.readString(Path.of(security.get("certificate").asText())));
            base.put("ssl.keystore.key", Files.readString(Path.of(security.get("key").asText())));
        }
        if (security.has("mechanism")) {
            String mechanism = security.get("mechanism").asText();
            base.put("sasl.mechanism", mechanism);
            if (security.has("token")) {
                Path token = Files.createTempFile("token", ".jwt");
                Files.writeString(token, security.get("token").asText());
                System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.urls", token.toUri().toString());
                System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.files", token.toString());
                base.put("sasl.oauthbearer.token.endpoint.url", token.toUri().toString());
                base.put("sasl.login.callback.handler.class", "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler");
                base.put("sasl.jaas.config", "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;");
            } else {
                String kind = mechanism.startsWith("SCRAM") ? "scram.Scram" : "plain.Plain";
                base.put("sasl.jaas.config", "org.apache.kafka.common.security." + kind + "LoginModule required username=\""
                    + security.get("username").asText() + "\" password=\"" + security.get("password").asText() + "\";");
            }
        }
        return null;
    }

    static Map<String, Object> settings(Object... more) {
        Map<String, Object> settings = new HashMap<>(base);
        for (int index = 0; index < more.length; index += 2) settings.put((String) more[index], more[index + 1]);
        return settings;
    }

    static Admin admin() {
        if (admin == null) admin = Admin.create(settings("default.api.timeout.ms", "60000"));
        return admin;
    }

    static <T> T get(org.apache.kafka.common.KafkaFuture<T> future) throws Exception {
        return future.get(TIMEOUT_S, TimeUnit.SECONDS);
    }

    static Object done(org.apache.kafka.common.KafkaFuture<Void> future) throws Exception {
        get(future);
        return null;
    }

    static Object producer(JsonNode request) {
        Map<String, Object> settings = settings("compression.type", request.path("codec").asText("none"), "linger.ms", "20",
            "enable.idempotence", request.path("idempotent").asBoolean(true));
        String transactionalId = request.path("transactional_id").asText("");
        if (!transactionalId.isEmpty()) settings.put("transactional.id", transactionalId);
        KafkaProducer<String, String> producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
        producers.put(request.get("name").asText(), producer);
        if (!transactionalId.isEmpty()) producer.initTransactions();
        return null;
    }

    static Object send(KafkaProducer<String, String> producer, String topic, int partition, JsonNode records) throws Exception {
        List<Future<RecordMetadata>> futures = new ArrayList<>();
        for (JsonNode entry : records) {
            ProducerRecord<String, String> record = new ProducerRecord<>(topic, partition, entry.get(0).textValue(), entry.get(1).textValue());
            for (JsonNode header : entry.get(2)) record.headers().add(header.get(0).asText(), header.get(1).asText().getBytes("UTF-8"));
            futures.add(producer.send(record));
        }
        producer.flush();
        List<Long> offsets = new ArrayList<>();
        for (Future<RecordMetadata> future : futures) offsets.add(future.get().offset());
        return offsets;
    }

    static List<Object> record(ConsumerRecord<String, String> record) {
        List<Object> headers = new ArrayList<>();
        for (Header header : record.headers()) headers.add(List.of(header.key(), new String(header.value())));
        return Arrays.asList(record.partition(), record.offset(), record.key(), record.value(), headers);
    }

    static KafkaConsumer<String, String> consumer(Map<String, Object> settings) {
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    static KafkaConsumer<String, String> consumer(JsonNode request) {
        Map<String, Object> settings = settings("group.id", request.get("group").asText(), "auto.offset.reset", "earliest",
            "enable.auto.commit", "false", "max.poll.records", "10");
        if (request.has("instance")) settings.put("group.instance.id", request.get("instance").asText());
        if (request.path("protocol").asText("classic").equals("consumer")) {
            settings.put("group.protocol", "consumer");
        } else {
            settings.put("session.timeout.ms", "6000");
            settings.put("heartbeat.interval.ms", "500");
        }
        return consumer(settings);
    }

    static Object read(String topic, JsonNode request) throws Exception {
        List<Object> got = new ArrayList<>();
        TopicPartition place = new TopicPartition(topic, 0);
        String isolation = request.get("committed").asBoolean() ? "read_committed" : "read_uncommitted";
        try (KafkaConsumer<String, String> consumer = consumer(settings("isolation.level", isolation))) {
            consumer.assign(List.of(place));
            JsonNode start = request.get("start");
            if (start.has("offset")) consumer.seek(place, start.get("offset").asLong());
            else if (start.has("time_ms")) consumer.seek(place, consumer.offsetsForTimes(Map.of(place, start.get("time_ms").asLong())).get(place).offset());
            else consumer.seekToBeginning(List.of(place));
            long deadline = System.nanoTime() + (long) (request.get("timeout_s").asDouble() * 1e9);
            while (got.size() < request.get("count").asInt() && System.nanoTime() < deadline)
                consumer.poll(Duration.ofMillis(200)).forEach(entry -> got.add(record(entry)));
        }
        return got;
    }

    static class Member implements Runnable {
        final ConcurrentLinkedQueue<Object> got = new ConcurrentLinkedQueue<>();
        final KafkaConsumer<String, String> consumer;
        final Thread thread = new Thread(this);
        volatile Set<TopicPartition> owned = Set.of();
        volatile boolean stop;
        volatile Throwable failure;

        Member(String topic, KafkaConsumer<String, String> consumer) {
            this.consumer = consumer;
            consumer.subscribe(List.of(topic));
            thread.setDaemon(true);
            thread.start();
        }

        public void run() {
            try (consumer) {
                while (!stop) {
                    ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(100));
                    records.forEach(entry -> got.add(record(entry)));
                    if (!records.isEmpty()) consumer.commitSync();
                    owned = Set.copyOf(consumer.assignment());
                }
            } catch (Throwable error) {
                failure = error;
            }
        }

        List<Object> taken() {
            List<Object> taken = new ArrayList<>();
            for (Object entry; (entry = got.poll()) != null; ) taken.add(entry);
            return taken;
        }

        Object state() {
            if (failure != null) throw new RuntimeException(failure);
            return Map.of("assigned", owned.stream().map(TopicPartition::partition).sorted().toList(), "records", taken());
        }

        Object leave() throws Exception {
            stop = true;
            thread.join(TIMEOUT_S * 1000);
            if (failure != null) throw new RuntimeException(failure);
            return taken();
        }
    }

    static Object copy(JsonNode request) {
        KafkaProducer<String, String> producer = new KafkaProducer<>(
            settings("transactional.id", request.get("transactional_id").asText()), new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        KafkaConsumer<String, String> consumer = consumer(request);
        consumer.subscribe(List.of(request.get("source").asText()));
        int copied = 0, count = request.get("count").asInt();
        long deadline = System.nanoTime() + TIMEOUT_S * 1_000_000_000L;
        while (copied < count && System.nanoTime() < deadline) {
            ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(200));
            if (records.isEmpty()) continue;
            producer.beginTransaction();
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            for (ConsumerRecord<String, String> entry : records) {
                producer.send(new ProducerRecord<>(request.get("target").asText(), 0, entry.key(), entry.value()));
                offsets.put(new TopicPartition(entry.topic(), entry.partition()), new OffsetAndMetadata(entry.offset() + 1));
            }
            producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
            copied += records.count();
            if (request.get("leave_open").asBoolean() && copied >= count) {
                producer.flush();
                return copied;
            }
            producer.commitTransaction();
        }
        consumer.close();
        producer.close();
        return copied;
    }

    static Object describeConfig(String topic) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Map<String, String> values = new HashMap<>();
        for (ConfigEntry entry : get(admin().describeConfigs(List.of(resource)).all()).get(resource).entries())
            values.put(entry.name(), entry.value());
        return values;
    }

    static Object committed(String group, String topic) throws Exception {
        Map<String, Long> offsets = new HashMap<>();
        get(admin().listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).forEach((place, entry) -> {
            if (place.topic().equals(topic) && entry != null) offsets.put("" + place.partition(), entry.offset());
        });
        return offsets;
    }

    /** Creates one rule, lists it, deletes it: how many each saw. */
    static Object acls(String topic, String principal) throws Exception {
        AclBinding rule = new AclBinding(new ResourcePattern(ResourceType.TOPIC, topic, PatternType.LITERAL),
            new AccessControlEntry(principal, "*", AclOperation.READ, AclPermissionType.ALLOW));
        get(admin().createAcls(List.of(rule)).all());
        int listed = get(admin().describeAcls(rule.toFilter()).values()).size();
        return List.of(1, listed, get(admin().deleteAcls(List.of(rule.toFilter())).all()).size());
    }

    /** Gives a user credentials; the mechanisms that the broker then lists. */
    static Object scramUser(String user, String password, String mechanism) throws Exception {
        ScramCredentialInfo info = new ScramCredentialInfo(ScramMechanism.fromMechanismName(mechanism), 4096);
        get(admin().alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(user, info, password))).all());
        return get(admin().describeUserScramCredentials(List.of(user)).description(user)).credentialInfos().stream()
            .map(entry -> entry.mechanism().name()).toList();
    }
}
