"""Makes vectors.json: requests signed by botocore, as oracles for the verifier. Run in this folder; the time stands still."""
import datetime, json
import botocore.auth, botocore.awsrequest, botocore.credentials

NOW = datetime.datetime(2015, 8, 30, 12, 36, 0)


class Still(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW.replace(tzinfo=tz)

    @classmethod
    def utcnow(cls):
        return NOW


botocore.auth.datetime.datetime = Still
botocore.auth.get_current_datetime = lambda remove_tzinfo=True: NOW
KEY, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "AQoDYXdzEPT//////////wEXAMPLE"
B = "http://example.amazonaws.com"
CASES = [
    # name, method, url, headers, body, session token, signer
    ("get-vanilla", "GET", B + "/", {}, "", None, "header"),
    ("get-vanilla-query-order-key", "GET", B + "/?Param2=b&Param1=a&Param1=A", {}, "", None, "header"),
    ("get-query-key-prefix", "GET", B + "/?a-b=2&a=1", {}, "", None, "header"),
    ("get-unreserved", "GET", B + "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", {}, "", None, "header"),
    ("get-utf8", "GET", B + "/%E1%88%B4", {}, "", None, "header"),
    ("get-space", "GET", B + "/example%20space/", {}, "", None, "header"),
    ("get-relative", "GET", B + "/example/..", {}, "", None, "header"),
    ("get-relative-relative", "GET", B + "/example1/example2/../..", {}, "", None, "header"),
    ("get-slash-dot-slash", "GET", B + "/./", {}, "", None, "header"),
    ("get-slashes", "GET", B + "//example//", {}, "", None, "header"),
    ("get-arn-in-path", "GET", B + "/v1/tags/arn%3Aaws%3Aecs%3Aus-east-1%3A000000000000%3Aservice%2Fa", {}, "", None, "header"),
    ("get-query-empty-value", "GET", B + "/?policy=", {}, "", None, "header"),
    ("get-query-encoded", "GET", B + "/?a=b%20c&d=e%2Ff%3D&g=h~i%E1%88%B4", {}, "", None, "header"),
    ("get-header-value-trim", "GET", B + "/", {"My-Header1": "  value1", "My-Header2": '  "a   b   c"  '}, "", None, "header"),
    ("post-form", "POST", B + "/", {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, "Action=GetCallerIdentity&Version=2011-06-15", None, "header"),
    ("post-json", "POST", B + "/", {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters"}, '{"maxResults": 1}', None, "header"),
    ("post-session-token", "POST", B + "/", {}, "Param1=value1", TOKEN, "header"),
    ("get-presigned", "GET", B + "/?Action=GetCallerIdentity&Version=2011-06-15", {}, "", None, "query"),
    ("get-presigned-token", "GET", B + "/?Action=GetCallerIdentity&Version=2011-06-15", {}, "", TOKEN, "query"),
]
out = []
for name, method, url, headers, body, token, how in CASES:
    cred = botocore.credentials.Credentials(KEY, SECRET, token)
    req = botocore.awsrequest.AWSRequest(method=method, url=url, headers=dict(headers), data=body)
    if how == "query":
        botocore.auth.SigV4QueryAuth(cred, "service", "us-east-1", expires=60).add_auth(req)
    else:
        botocore.auth.SigV4Auth(cred, "service", "us-east-1").add_auth(req)
    p = req.prepare()
    out.append({"name": name, "method": method, "url": p.url, "headers": {k: v if isinstance(v, str) else v.decode() for k, v in p.headers.items()}, "body": body})
json.dump(out, open("vectors.json", "w"), indent=1)
