"""Users and ACLs through their requests; what was answered survives a loss of power."""

from typing import Any

from broker.security.scram import ScramMechanism
from protocol.api_keys import ApiKey
from protocol.messages import (
    AlterUserScramCredentialsRequest,
    CreateAclsRequest,
    DeleteAclsRequest,
    DescribeAclsRequest,
    DescribeUserScramCredentialsRequest,
)
from tests.unit.broker.admin import Admin

AUTHORIZER: dict[str, Any] = {"authorizer_class_name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"}
ACL: dict[str, Any] = {
    "resource_type": 2,
    "resource_name": "t",
    "resource_pattern_type": 3,
    "principal": "User:alice",
    "host": "*",
    "operation": 3,
    "permission_type": 3,
}


def administrator() -> Admin:
    """Whose own rights are a super user's."""
    return Admin(**AUTHORIZER, super_users="User:ANONYMOUS")


def listed(admin: Admin) -> list[tuple[str, int]]:
    everything = DescribeAclsRequest(
        resource_type_filter=1, pattern_type_filter=1, operation=1, permission_type=1,
        resource_name_filter=None, principal_filter=None, host_filter=None,
    )  # fmt: skip
    answer = admin.ask(ApiKey.DESCRIBE_ACLS, 3, everything)
    return [(resource.resource_name, acl.operation) for resource in answer.resources for acl in resource.acls]


def test_acls_survive_a_crash() -> None:
    """Made, lost power, still in force; deleted, lost power, still gone."""
    admin = administrator()
    creations = [CreateAclsRequest.AclCreation(**{**ACL, "operation": operation}) for operation in (3, 4)]
    answer = admin.ask(ApiKey.CREATE_ACLS, 3, CreateAclsRequest(creations=creations))
    assert [result.error_code for result in answer.results] == [0, 0]
    admin.crash()
    assert listed(admin) == [("t", 3), ("t", 4)]
    reads = DeleteAclsRequest.DeleteAclsFilter(
        resource_type_filter=2, resource_name_filter="t", pattern_type_filter=3, principal_filter=None,
        host_filter=None, operation=3, permission_type=1,
    )  # fmt: skip
    admin.ask(ApiKey.DELETE_ACLS, 3, DeleteAclsRequest(filters=[reads]))
    admin.crash()
    assert listed(admin) == [("t", 4)]


def test_scram_users_survive_a_crash() -> None:
    """And no two changes of one user in a request are taken."""
    admin = Admin()
    Upsertion = AlterUserScramCredentialsRequest.ScramCredentialUpsertion
    rows = [
        Upsertion(name=name, mechanism=1, iterations=4096, salt=b"salt", salted_password=b"p" * 32)
        for name in ("alice", "bob", "bob")
    ]
    answer = admin.ask(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, 0, AlterUserScramCredentialsRequest(upsertions=rows))
    assert {result.user: result.error_code for result in answer.results} == {"alice": 0, "bob": 92}
    admin.crash()
    answer = admin.ask(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, 0, DescribeUserScramCredentialsRequest(users=None))
    assert [(result.user, result.credential_infos[0].iterations) for result in answer.results] == [("alice", 4096)]
    assert admin.services.security.users.get("alice", ScramMechanism.SCRAM_SHA_256).salt == b"salt"
