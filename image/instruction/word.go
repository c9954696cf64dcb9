package instruction

import (
	"fmt"
	"strings"
)

// split splits a line at its white space; quotes and backslashes stay for
// expand.
func split(text string) ([]string, error) {
	var out []string
	var quote byte
	start := -1
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote == 0 && (c == ' ' || c == '\t'):
			if start >= 0 {
				out = append(out, text[start:i])
			}
			start = -1
			continue
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case c == quote:
			quote = 0
		case c == '\\' && quote != '\'':
			if start < 0 {
				start = i
			}
			i++
			continue
		}
		if start < 0 {
			start = i
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote %c is not closed", quote)
	}
	if start >= 0 {
		out = append(out, text[start:])
	}
	return out, nil
}

// expand takes quotes and backslashes out of a word, and puts in what the
// image's environment says for $name, ${name}, ${name:-default} and
// ${name:+instead}.
func (s *state) expand(word string) (string, error) {
	var b strings.Builder
	var quote byte
	for i := 0; i < len(word); i++ {
		c := word[i]
		switch {
		case quote == '\'' && c != '\'':
			b.WriteByte(c)
		case c == quote && quote != 0:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case c == '\\' && i+1 < len(word):
			i++
			if quote == '"' && !strings.ContainsRune("\"$\\`", rune(word[i])) {
				b.WriteByte('\\')
			}
			b.WriteByte(word[i])
		case c == '$':
			value, n, err := s.variable(word[i+1:])
			if err != nil {
				return "", err
			}
			b.WriteString(value)
			i += n
		default:
			b.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", fmt.Errorf("a quote %c is not closed", quote)
	}
	return b.String(), nil
}

// variable reads what follows a $ and tells how long that is.
func (s *state) variable(text string) (value string, n int, err error) {
	if !strings.HasPrefix(text, "{") {
		if n = nameLength(text); n == 0 {
			return "$", 0, nil
		}
		return s.lookup(text[:n]), n, nil
	}
	end := strings.IndexByte(text, '}')
	if end < 0 {
		return "", 0, fmt.Errorf("${ is not closed")
	}
	inner := text[1:end]
	size := nameLength(inner)
	name, rest := inner[:size], inner[size:]
	value = s.lookup(name)
	switch {
	case size == 0:
		return "", 0, fmt.Errorf("${%s}: bad name", inner)
	case rest == "":
	case strings.HasPrefix(rest, ":-"):
		if value == "" {
			value = rest[2:]
		}
	case strings.HasPrefix(rest, ":+"):
		if value != "" {
			value = rest[2:]
		}
	default:
		return "", 0, fmt.Errorf("${%s}: unsupported modifier", inner)
	}
	return value, end + 1, nil
}

func nameLength(s string) int {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}

func (s *state) lookup(name string) string {
	for _, e := range s.run.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}
