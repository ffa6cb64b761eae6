package server

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/model"
)

// maxMissing bounds the list of what a service cannot do: of EC2's hundreds of operations a handful is wanted here.
const maxMissing = 200

// WriteOperations writes docs/OPERATIONS.md: what every family with an operation in the table can do, and what AWS has
// that it cannot do yet; then what the REST API has beside operations.
func WriteOperations(w io.Writer, ops []api.Operation, resources ...api.RESTResource) error {
	families := map[string][]api.Operation{}
	for _, o := range ops {
		families[o.Service] = append(families[o.Service], o)
	}
	b := &strings.Builder{}
	b.WriteString("# Operations\n\nGenerated from the operation tables; a test checks that it is fresh. ")
	b.WriteString("Every operation is reached over the AWS protocol of its service and as `POST /api/v1/actions/SERVICE/OPERATION`; ")
	b.WriteString("the REST route below is a shorter way, under `/api/v1`. ")
	b.WriteString("An operation listed as not implemented answers `NotImplemented` (HTTP 501) in the caller's protocol.\n")
	for _, service := range slices.Sorted(maps.Keys(families)) {
		m, err := model.Load(service)
		if err != nil {
			return err
		}
		bound := families[service]
		slices.SortFunc(bound, func(x, y api.Operation) int { return strings.Compare(x.Name, y.Name) })
		fmt.Fprintf(b, "\n## %s (`%s`)\n\n%d of %d operations.\n\n| operation | mode | REST route | IAM action |\n|---|---|---|---|\n",
			m.ServiceID, service, len(bound), len(m.Operations()))
		missing := m.Operations()
		for _, o := range bound {
			route := "–"
			if o.Route != "" {
				route = "`" + o.Route + "`"
			}
			mode := o.Mode.String()
			if o.Unsigned {
				mode += ", unsigned"
			}
			if o.Open {
				mode += ", no permission"
			}
			if o.Events != nil {
				mode += ", event stream"
			}
			fmt.Fprintf(b, "| %s | %s | %s | `%s` |\n", o.Name, mode, route, o.Action())
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == o.Name })
		}
		switch {
		case len(missing) > maxMissing:
			fmt.Fprintf(b, "\nThe other %d are not implemented.\n", len(missing))
		case len(missing) > 0:
			fmt.Fprintf(b, "\nNot implemented: %s.\n", strings.Join(missing, ", "))
		}
	}
	if len(resources) > 0 {
		fmt.Fprintf(b, "\n## Beyond AWS (`%s`)\n\nWhat the REST API shows and does and AWS has no operation for.\n\n| resource | REST route | IAM action | |\n|---|---|---|---|\n", api.Platform)
	}
	for _, r := range resources {
		fmt.Fprintf(b, "| %s | `%s` | `%s` | %s |\n", r.Name, r.Route, r.Action(), r.Doc)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
