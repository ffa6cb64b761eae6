package auth_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// BenchmarkVerify is one signature, parsed and verified, of a caller who has called before.
func BenchmarkVerify(b *testing.B) {
	body := `{"clusterName": "` + strings.Repeat("a", 200) + `"}`
	r := received(b, "POST", "http://127.0.0.1:4566/", map[string]string{
		"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.CreateCluster", "Accept-Encoding": "identity",
		"User-Agent": "Boto3/1.43.0", "Amz-Sdk-Invocation-Id": "1d31d1bb-7fa5-4ddb-a84f-3ed14a2b9e5c", "Amz-Sdk-Request": "attempt=1",
	}, body)
	r.URL.Host = "127.0.0.1:4566"
	now := time.Now()
	if err := v4.NewSigner().SignHTTP(b.Context(), aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}, r, sha256Of(body), "ecs", "us-east-1", now); err != nil {
		b.Fatal(err)
	}
	v := auth.NewVerifier(sessions{}, clock.NewFake(now))
	b.ReportAllocs()
	for b.Loop() {
		if err := verify(v, r, body); err != nil {
			b.Fatal(err)
		}
	}
}
