"""Secrets and parameters with boto3: versions, labels, paginators, refusals. Usage: boto3_secrets.py ENDPOINT."""

import json
import sys

import boto3
import botocore.exceptions

endpoint = sys.argv[1]
secrets = boto3.client("secretsmanager", endpoint_url=endpoint)
ssm = boto3.client("ssm", endpoint_url=endpoint)


def refused(code, f, **args):
    try:
        f(**args)
    except botocore.exceptions.ClientError as e:
        assert e.response["Error"]["Code"] == code, e
        assert "canary" not in str(e), e
        return e.response
    raise AssertionError(f"{code} is due")


# Secrets: boto3 makes the request token, which is the version's id.
made = secrets.create_secret(Name="app/db", SecretString="canary 1", Description="of the database", Tags=[{"Key": "team", "Value": "red"}])
assert made["ARN"].startswith("arn:aws:secretsmanager:us-east-1:000000000000:secret:app/db-") and len(made["VersionId"]) == 36, made
put = secrets.put_secret_value(SecretId=made["ARN"], SecretBinary=b"\x00canary\xff")
assert put["VersionStages"] == ["AWSCURRENT"], put
value = secrets.get_secret_value(SecretId="app/db")
assert value["SecretBinary"] == b"\x00canary\xff" and "SecretString" not in value and value["VersionId"] == put["VersionId"], value
assert secrets.get_secret_value(SecretId="app/db", VersionStage="AWSPREVIOUS")["SecretString"] == "canary 1"
secrets.update_secret_version_stage(SecretId="app/db", VersionStage="AWSCURRENT", MoveToVersionId=made["VersionId"], RemoveFromVersionId=put["VersionId"])
assert secrets.get_secret_value(SecretId="app/db")["SecretString"] == "canary 1"
secret = secrets.describe_secret(SecretId="app/db")
assert secret["VersionIdsToStages"] == {made["VersionId"]: ["AWSCURRENT"], put["VersionId"]: ["AWSPREVIOUS"]}, secret
assert secret["Tags"] == [{"Key": "team", "Value": "red"}] and secret["Description"] == "of the database", secret
for i in range(5):
    secrets.create_secret(Name=f"crowd/{i}", SecretString=f"canary {i}")
names = [s["Name"] for p in secrets.get_paginator("list_secrets").paginate(
    Filters=[{"Key": "name", "Values": ["crowd/"]}], SortBy="name", SortOrder="asc", PaginationConfig={"PageSize": 2}) for s in p["SecretList"]]
assert names == [f"crowd/{i}" for i in range(5)], names
batch = secrets.batch_get_secret_value(SecretIdList=["crowd/1", "nobody"])
assert [v["SecretString"] for v in batch["SecretValues"]] == ["canary 1"] and batch["Errors"][0]["ErrorCode"] == "ResourceNotFoundException", batch
refused("ResourceExistsException", secrets.create_secret, Name="app/db", SecretString="canary 2")
refused("ResourceNotFoundException", secrets.get_secret_value, SecretId="nobody")
refused("InvalidParameterException", secrets.create_secret, Name="x", SecretString="canary", KmsKeyId="alias/mine")
secrets.delete_secret(SecretId="app/db", RecoveryWindowInDays=7)
refused("InvalidRequestException", secrets.get_secret_value, SecretId="app/db")
secrets.restore_secret(SecretId="app/db")
secrets.untag_resource(SecretId="app/db", TagKeys=["team"])
assert "Tags" not in secrets.describe_secret(SecretId="app/db") or secrets.describe_secret(SecretId="app/db")["Tags"] == []
assert len(secrets.get_random_password(PasswordLength=40, ExcludePunctuation=True)["RandomPassword"]) == 40
secrets.delete_secret(SecretId="app/db", ForceDeleteWithoutRecovery=True)
refused("ResourceNotFoundException", secrets.describe_secret, SecretId="app/db")
refused("NotImplemented", secrets.rotate_secret, SecretId="crowd/1")

# Parameters.
assert ssm.put_parameter(Name="/app/key", Value="canary 1", Type="SecureString", Tags=[{"Key": "team", "Value": "red"}])["Version"] == 1
assert ssm.put_parameter(Name="/app/key", Value="canary 2", Overwrite=True) ["Version"] == 2
ssm.label_parameter_version(Name="/app/key", ParameterVersion=1, Labels=["stable"])
get = lambda name, **args: ssm.get_parameter(Name=name, **args)["Parameter"]
assert get("/app/key:stable", WithDecryption=True)["Value"] == "canary 1"
assert get("/app/key", WithDecryption=True)["Value"] == "canary 2" and get("/app/key")["Value"] != "canary 2"
for i in range(12):
    ssm.put_parameter(Name=f"/crowd/{i:02}", Value=f"v{i}", Type="String")
ssm.put_parameter(Name="/crowd/deep/1", Value="a,b", Type="StringList")
page = ssm.get_paginator("get_parameters_by_path").paginate
assert [p["Value"] for g in page(Path="/crowd") for p in g["Parameters"]] == [f"v{i}" for i in range(12)]
assert len([p for g in page(Path="/crowd", Recursive=True) for p in g["Parameters"]]) == 13
described = [p for g in ssm.get_paginator("describe_parameters").paginate(
    ParameterFilters=[{"Key": "Name", "Option": "BeginsWith", "Values": ["/crowd"]}], PaginationConfig={"PageSize": 5}) for p in g["Parameters"]]
assert len(described) == 13 and described[0]["Tier"] == "Standard" and "Value" not in described[0], described
history = [h for g in ssm.get_paginator("get_parameter_history").paginate(Name="/app/key", WithDecryption=True) for h in g["Parameters"]]
assert [(h["Version"], h["Value"], h["Labels"]) for h in history] == [(1, "canary 1", ["stable"]), (2, "canary 2", [])], history
both = ssm.get_parameters(Names=["/app/key", "/nobody"], WithDecryption=True)
assert [p["Name"] for p in both["Parameters"]] == ["/app/key"] and both["InvalidParameters"] == ["/nobody"], both
assert ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/app/key")["TagList"] == [{"Key": "team", "Value": "red"}]
refused("ParameterAlreadyExists", ssm.put_parameter, Name="/app/key", Value="canary", Type="SecureString")
refused("ParameterNotFound", ssm.get_parameter, Name="/nobody")
refused("ParameterVersionNotFound", ssm.get_parameter, Name="/app/key:7")
refused("ValidationException", ssm.put_parameter, Name="/long", Value="x" * 4097, Type="String")
assert ssm.delete_parameters(Names=["/app/key", "/nobody"])["InvalidParameters"] == ["/nobody"]
print(json.dumps({"secrets": len(names), "parameters": len(described)}))
