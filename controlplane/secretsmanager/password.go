package secretsmanager

import (
	"context"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

const (
	letters     = "abcdefghijklmnopqrstuvwxyz"
	upper       = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits      = "0123456789"
	punctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
)

// getRandomPassword implements secretsmanager:GetRandomPassword.
func (f *Family) getRandomPassword(_ context.Context, in *sm.GetRandomPasswordInput) (*sm.GetRandomPasswordOutput, error) {
	length := int(aws.ToInt64(in.PasswordLength))
	if in.PasswordLength == nil {
		length = 32
	}
	var kinds []string
	for _, kind := range []struct {
		characters string
		without    bool
	}{
		{letters, aws.ToBool(in.ExcludeLowercase)}, {upper, aws.ToBool(in.ExcludeUppercase)}, {digits, aws.ToBool(in.ExcludeNumbers)},
		{punctuation, aws.ToBool(in.ExcludePunctuation)}, {" ", !aws.ToBool(in.IncludeSpace)},
	} {
		left := strings.Map(func(r rune) rune {
			if strings.ContainsRune(aws.ToString(in.ExcludeCharacters), r) {
				return -1
			}
			return r
		}, kind.characters)
		if !kind.without && left != "" {
			kinds = append(kinds, left)
		}
	}
	each := in.RequireEachIncludedType == nil || *in.RequireEachIncludedType
	switch {
	case length < 1 || length > 4096:
		return nil, invalidParameter("Password length %d is not between 1 and 4096.", length)
	case len(kinds) == 0:
		return nil, invalidParameter("The password can't be made: every character is excluded.")
	case each && length < len(kinds):
		return nil, invalidParameter("Password length %d is too short for one character of each required type.", length)
	}
	all := strings.Join(kinds, "")
	for {
		password := pick(f.Rand, all, length)
		// Drawn again until it has every kind: so that all such passwords are equally likely.
		if !each || hasEach(password, kinds) {
			return &sm.GetRandomPasswordOutput{RandomPassword: &password}, nil
		}
	}
}

func hasEach(password string, kinds []string) bool {
	for _, kind := range kinds {
		if !strings.ContainsAny(password, kind) {
			return false
		}
	}
	return true
}

// pick draws n characters, all of them equally likely.
func pick(random io.Reader, from string, n int) string {
	out, b := make([]byte, 0, n), make([]byte, 1)
	fair := 256 - 256%len(from)
	for len(out) < n {
		if _, err := io.ReadFull(random, b); err != nil {
			panic("secretsmanager: no randomness: " + err.Error())
		}
		if int(b[0]) < fair {
			out = append(out, from[int(b[0])%len(from)])
		}
	}
	return string(out)
}
