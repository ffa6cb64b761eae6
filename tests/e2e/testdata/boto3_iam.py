"""Users, roles and policies with boto3: paginators, waiters, a role's session, and all of it removed. Usage: boto3_iam.py ENDPOINT."""

import json
import sys

import boto3
import botocore.exceptions

endpoint = sys.argv[1]
iam = boto3.client("iam", endpoint_url=endpoint)


def client(service, cred=None):
    if cred is None:
        return boto3.client(service, endpoint_url=endpoint)
    return boto3.client(service, endpoint_url=endpoint, aws_access_key_id=cred["AccessKeyId"],
                        aws_secret_access_key=cred["SecretAccessKey"], aws_session_token=cred.get("SessionToken"))


def refused(code, f, **args):
    try:
        f(**args)
    except botocore.exceptions.ClientError as e:
        assert e.response["Error"]["Code"] == code, e
        return e.response
    raise AssertionError(f"{code} is due")


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(*actions, resource="*", **more):
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource, **more}


# Pages, and waiters.
for i in range(7):
    iam.create_user(UserName=f"user-{i}", Path="/crowd/")
iam.get_waiter("user_exists").wait(UserName="user-6", WaiterConfig={"Delay": 1, "MaxAttempts": 5})
names = [u["UserName"] for p in iam.get_paginator("list_users").paginate(PathPrefix="/crowd/", PaginationConfig={"PageSize": 3}) for u in p["Users"]]
assert names == [f"user-{i}" for i in range(7)], names
assert refused("EntityAlreadyExists", iam.create_user, UserName="user-0")["ResponseMetadata"]["HTTPStatusCode"] == 409
assert refused("NoSuchEntity", iam.get_user, UserName="nobody")["ResponseMetadata"]["HTTPStatusCode"] == 404
assert refused("MalformedPolicyDocument", iam.put_user_policy, UserName="user-0", PolicyName="p", PolicyDocument="{}")["ResponseMetadata"]["HTTPStatusCode"] == 400

# A user that may assume one role, which may push to one repository.
text = document(allow("ecr:*", resource="arn:aws:ecr:*:*:repository/team/*"), allow("ecr:GetAuthorizationToken"))
policy = iam.create_policy(PolicyName="push", PolicyDocument=text, Description="pushes")["Policy"]
iam.get_waiter("policy_exists").wait(PolicyArn=policy["Arn"], WaiterConfig={"Delay": 1, "MaxAttempts": 5})
version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId="v1")["PolicyVersion"]
assert version["Document"] == json.loads(text) and version["IsDefaultVersion"], version
user = iam.get_user(UserName="user-0")["User"]
trust = document({"Effect": "Allow", "Principal": {"AWS": user["Arn"]}, "Action": ["sts:AssumeRole", "sts:TagSession"]})
role = iam.create_role(RoleName="pusher", AssumeRolePolicyDocument=trust, MaxSessionDuration=3600, Tags=[{"Key": "stage", "Value": "ci"}])["Role"]
assert role["AssumeRolePolicyDocument"] == json.loads(trust), role
iam.get_waiter("role_exists").wait(RoleName="pusher", WaiterConfig={"Delay": 1, "MaxAttempts": 5})
iam.attach_role_policy(RoleName="pusher", PolicyArn=policy["Arn"])
key = iam.create_access_key(UserName="user-0")["AccessKey"]
assert iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["UserName"] == "user-0"
sts = client("sts", key)
got = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="job", DurationSeconds=900, Tags=[{"Key": "team", "Value": "red"}])
assert got["AssumedRoleUser"] == {"AssumedRoleId": role["RoleId"] + ":job", "Arn": "arn:aws:sts::000000000000:assumed-role/pusher/job"}, got
assert client("sts", got["Credentials"]).get_caller_identity()["UserId"] == role["RoleId"] + ":job"
ecr = client("ecr", got["Credentials"])
ecr.create_repository(repositoryName="team/app")
ecr.get_authorization_token()
refused("AccessDeniedException", ecr.create_repository, repositoryName="other/app")
refused("AccessDeniedException", client("ecs", got["Credentials"]).list_clusters)
refused("AccessDenied", client("sts").assume_role, RoleArn=role["Arn"], RoleSessionName="root")
used = iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
assert used["ServiceName"] == "sts" and used["LastUsedDate"], used

# What the account has.
summary = iam.get_account_summary()["SummaryMap"]
assert summary["Users"] == 7 and summary["Roles"] == 1 and summary["Policies"] == 1, summary
details = iam.get_account_authorization_details(Filter=["Role"])["RoleDetailList"]
assert details[0]["AttachedManagedPolicies"] == [{"PolicyName": "push", "PolicyArn": policy["Arn"]}] and details[0]["Tags"], details
attached = [a["PolicyName"] for p in iam.get_paginator("list_attached_role_policies").paginate(RoleName="pusher") for a in p["AttachedPolicies"]]
assert attached == ["push"], attached

# All of it goes.
refused("DeleteConflict", iam.delete_user, UserName="user-0")
refused("DeleteConflict", iam.delete_role, RoleName="pusher")
iam.detach_role_policy(RoleName="pusher", PolicyArn=policy["Arn"])
iam.delete_role(RoleName="pusher")
iam.delete_policy(PolicyArn=policy["Arn"])
iam.delete_access_key(UserName="user-0", AccessKeyId=key["AccessKeyId"])
refused("InvalidClientTokenId", sts.get_caller_identity)
for i in range(7):
    iam.delete_user(UserName=f"user-{i}")
assert not iam.list_users()["Users"]
