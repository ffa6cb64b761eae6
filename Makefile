# make run   starts the platform with the microservices example behind its load balancer
# make test  passes all tests
# Both install what they need on Debian as root, and say what to install elsewhere.

SHELL       := /bin/bash
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# The suite of the OCI distribution specification, which TestConformance and TestConformanceOfThreeServers run.
CONFORMANCE := github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111
# A static binary: no C library, no resolver and no user database of the host is needed to run it. The last three tags leave out what nobody here
# uses and what keeps the linker from leaving out more: a method that is looked up by a name known only when it runs (TestDeadCode).
TAGS        := $(shell cat scripts/tags)
GOBUILD     := CGO_ENABLED=1 go build -tags $(TAGS) -ldflags '-s -w -extldflags "-static"'
comma       := ,
EXAMPLES    := users threads posts

.PHONY: build run test lint bench example clean generate

build:
	@scripts/setup.sh build
	$(GOBUILD) -o bin/neargate-shim ./cmd/neargate-shim
	@gzip -n9 <bin/neargate-shim >cmd/neargate/neargate-shim.gz
	$(subst $(TAGS),$(TAGS)$(comma)embedshim,$(GOBUILD)) -o bin/neargate ./cmd/neargate

example:
	@for s in $(EXAMPLES); do CGO_ENABLED=0 go build -ldflags '-s -w' -o examples/microservices/bin/$$s ./examples/microservices/$$s || exit 1; done

run: build example
	$(GOBUILD) -o bin/example-up ./examples/microservices/up
	@bin/example-up -images examples/microservices/bin & exec bin/neargate dev

test:
	@scripts/setup.sh test
	GOBIN=$(CURDIR)/bin go install $(CONFORMANCE)
	OCI_CONFORMANCE=$(CURDIR)/bin/conformance scripts/test.sh

lint:
	@scripts/setup.sh build
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "not gofmt-ed:"; echo "$$bad"; exit 1; }
	go mod tidy -diff
	go vet -tags $(TAGS) ./...
	# The deprecated members of AWS's shapes are still in use by those who call us.
	go run $(STATICCHECK) -checks inherit,-SA1019 -tags $(TAGS) ./...

bench: build
	@scripts/setup.sh bench
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/bench-hello ./bench/hello
	go build -tags $(TAGS) -o bin/bench ./bench
	scripts/bench.sh $(BENCH)
	go test -tags $(TAGS) -run '^$$' -bench . -benchmem -timeout 30m ./...

# Generated files are committed; this needs protoc and its Go plugins.
generate:
	go generate ./...

clean:
	rm -rf bin examples/microservices/bin
