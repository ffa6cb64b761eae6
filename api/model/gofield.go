package model

// goFields are the members whose Go field is not their capitalised name, by service, shape and member.
var goFields = map[[3]string]string{}

// GoField is the SDK's Go field for a member.
func GoField(service, shape, member string) string {
	if f, ok := goFields[[3]string{service, shape, member}]; ok {
		return f
	}
	if c := member[0]; c >= 'a' && c <= 'z' {
		return string(c-'a'+'A') + member[1:]
	}
	return member
}
