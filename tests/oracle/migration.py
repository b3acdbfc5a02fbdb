"""A classic group becomes a consumer group while its members work, and a classic one again (KIP-848).

Scenarios for `oracle.py` (see tests/compat/README.md), recorded from Apache Kafka 4.3.0.
"""

import time

from scenarios.consumer_groups import Consumer, _assigned, _describe
from scenarios.helpers import Member, assignment, coordinators, only_this_run, topic_id


def size_only(o):
    """Who gets which partitions is the assignor's choice: the size of the assignment alone is compared."""
    answer = o.steps[-1]["answer"]
    if isinstance(answer, dict) and isinstance(answer.get("assignment"), dict):
        answer["assignment"] = len(answer["assignment"].get("bytes", "")) // 2


def synced(o, member, label, assignments=(), **other):
    member.send_sync(assignments, **other)
    member.synced(label)
    size_only(o)


def s_consumer_group_upgrade(o):
    """A member of each protocol in one group: what the classic one may do, until it is alone again."""
    coordinators(o)
    topic = o.create("t", 4)
    topic_id(o, topic)  # a symbol for the recording
    time.sleep(0.5)
    old = Member(o, o.topic("g"), topic, version=7)
    old.enter("old")
    old.sync("old syncs", [(old.id, assignment(topic, 0, 1, 2, 3))])
    new = Consumer(o, old.group, topic)
    new.join("new joins")
    _describe(o, "upgraded", old.group)
    old.heartbeat("old's heartbeat calls it")
    old.heartbeat("and again")
    generation = old.generation
    synced(o, old, "old syncs without joining")
    o.step(
        "old commits",
        "OffsetCommit",
        8,
        group_id=old.group,
        generation_id_or_member_epoch=generation,
        member_id=old.id,
        topics=[
            {"name": topic, "partitions": [{"partition_index": 0, "committed_offset": 1, "committed_metadata": ""}]}
        ],
    )
    old.join("old joins again")
    old.heartbeat("old's heartbeat before it syncs")
    synced(o, old, "old syncs")
    old.heartbeat("old's heartbeat")
    new.beat("new gets half", until=_assigned)
    new.confirm("new owns half")
    _describe(o, "shared", old.group)
    old.heartbeat("old's heartbeat, all done")
    synced(o, old, "old syncs once more")
    synced(o, old, "other protocol", protocol_name="sticky")
    synced(o, old, "other protocol type", protocol_type="connect")
    synced(o, old, "wrong generation", generation_id=99)
    o.step("heartbeat, wrong generation", "Heartbeat", 4, group_id=old.group, generation_id=99, member_id=old.id)
    o.step("heartbeat, unknown", "Heartbeat", 4, group_id=old.group, generation_id=old.generation, member_id="nobody")
    o.step(
        "heartbeat, unknown instance",
        "Heartbeat",
        4,
        group_id=old.group,
        generation_id=old.generation,
        member_id=old.id,
        group_instance_id="nobody",
    )
    old.join("joins with other protocols", protocols=[{"name": "other", "metadata": old.protocols[0]["metadata"]}])
    old.join("joins with another type", protocol_type="connect")
    old.join("joins without protocols", protocols=[])
    for version in (8, 9):
        for label, epoch in (("right", old.generation), ("old", generation), ("older", 0), ("newer", 99), ("none", -1)):
            o.step(
                f"v{version} old commits, {label} generation",
                "OffsetCommit",
                version,
                group_id=old.group,
                generation_id_or_member_epoch=epoch,
                member_id=old.id,
                topics=[
                    {
                        "name": topic,
                        "partitions": [
                            {"partition_index": p, "committed_offset": 1, "committed_metadata": ""} for p in range(4)
                        ],
                    }
                ],
            )
            counted_errors(o)
    for label, epoch in (("right", old.generation), ("old", generation), ("newer", 99)):
        o.step(
            f"old fetches, {label} generation",
            "OffsetFetch",
            9,
            groups=[
                {
                    "group_id": old.group,
                    "member_id": old.id,
                    "member_epoch": epoch,
                    "topics": [{"name": topic, "partition_indexes": [0]}],
                }
            ],
        )
        if isinstance(o.steps[-1]["answer"], dict):
            for g in o.steps[-1]["answer"].get("groups", []):
                g["topics"] = len(g["topics"])
    third = Member(o, old.group, topic, version=7)
    third.join("third asks for its id")
    third.join("third joins")
    fourth = Member(o, old.group, topic, version=3)
    fourth.join("fourth, v3, joins at once")
    o.step(
        "third and fourth leave",
        "LeaveGroup",
        5,
        group_id=old.group,
        members=[{"member_id": third.id}, {"member_id": fourth.id}, {"member_id": "nobody"}],
    )
    for version in (5, 6):
        o.step(f"described as classic v{version}", "DescribeGroups", version, groups=[old.group])
    new.leave("new leaves")
    o.step("listed", "ListGroups", 5)
    only_this_run(o, "groups", "group_id")
    o.step("described as classic after that", "DescribeGroups", 6, groups=[old.group])
    for g in o.steps[-1]["answer"].get("groups", []):
        for m in g.get("members", []):
            m["member_assignment"] = len(str(m["member_assignment"]))
    _describe(o, "downgraded", old.group)
    old.heartbeat(
        "old's heartbeat calls it to rebalance",
    )


def counted_errors(o):
    """Which error codes there are; whose partition gets which depends on the assignment."""
    answer = o.steps[-1]["answer"]
    if isinstance(answer, dict):
        for t in answer.get("topics", []):
            t["partitions"] = sorted({p["error_code"] for p in t["partitions"]})


def s_consumer_group_static_upgrade(o):
    """Static members change the protocol by restarting as another process."""
    coordinators(o)
    topic = o.create("t", 2)
    time.sleep(0.5)
    old = Member(o, o.topic("g"), topic, version=7, instance="i")
    old.join("old joins")
    old.sync("old syncs", [(old.id, assignment(topic, 0, 1))])
    new = Consumer(o, old.group, topic, instance="i")
    new.join("new process, new protocol", until=_assigned)
    _describe(o, "upgraded", old.group)
    old.heartbeat("old's heartbeat")
    old.join("old joins again with its id")
    twin = Consumer(o, old.group, topic, instance="i")
    twin.join("a twin while it is there")
    back = Member(o, old.group, topic, version=7, instance="i")
    back.join("old protocol again")
    o.step("listed", "ListGroups", 5)
    only_this_run(o, "groups", "group_id")
    o.step("described", "DescribeGroups", 6, groups=[old.group])
    synced(o, back, "it syncs")
    back.heartbeat("its heartbeat")
    new.beat("the new process, fenced")
    back.leave("leaves")
