package logtag

import "testing"

func TestRender(t *testing.T) {
	c := Container{ContainerID: "0123456789abcdef0123", ContainerName: "/web", ContainerEntrypoint: "/bin/sh", ContainerArgs: []string{"-c", "true"},
		ContainerImageID: "sha256:fedcba9876543210", ContainerImageName: "registry.test/web:1", DaemonName: "neargate", Host: "h1"}
	for text, want := range map[string]string{
		"":                            "0123456789ab",
		"plain":                       "plain",
		"{{.Name}}/{{.FullID}}":       "web/0123456789abcdef0123",
		"{{.ImageName}}-{{.ImageID}}": "registry.test/web:1-fedcba987654",
		"{{.Command}} on {{.Hostname}} by {{.DaemonName}}": "/bin/sh -c true on h1 by neargate",
		`{{upper .Name}}{{pad "x" 1 2}}{{truncate .ID 2}}`: "WEB x  01",
		`{{json .ContainerArgs}}`:                          `["-c","true"]`,
		`{{(index .ContainerArgs 0)}}`:                     "-c",
		`{{.Name | upper | json}}`:                         `"WEB"`,
		`{{join (split "a b" " ") "-"}}`:                   "a-b",
	} {
		if got, err := Render(text, c); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"{{.Nothing}}", "{{", "{{nothing .ID}}", "{{if .ID}}x{{end}}", "{{upper}}", "{{upper 1}}", "{{$x := .ID}}", "{{.ID.Name}}", "{{range .ContainerArgs}}x{{end}}"} {
		if err := Check(text); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}
