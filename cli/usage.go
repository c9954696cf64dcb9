package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

const helpWidth = 80 // columns that help is wrapped to

// flagUsages lists flags with their help, wrapped, in Docker's shape.
func flagUsages(flags *pflag.FlagSet) string {
	var left, right []string
	width := 0
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		l := "      --" + f.Name
		if f.Shorthand != "" {
			l = fmt.Sprintf("  -%s, --%s", f.Shorthand, f.Name)
		}
		if kind := f.Value.Type(); kind != "bool" {
			switch kind {
			case "int64":
				kind = "int"
			}
			l += " " + kind
		}
		r := f.Usage
		switch f.DefValue {
		case "", "false", "0", "0s", "[]":
		default:
			if f.Value.Type() == "string" {
				r += fmt.Sprintf(" (default %q)", f.DefValue)
			} else {
				r += fmt.Sprintf(" (default %s)", f.DefValue)
			}
		}
		left, right = append(left, l), append(right, r)
		width = max(width, len(l))
	})
	var b strings.Builder
	for i := range left {
		fmt.Fprintf(&b, "%-*s   %s\n", width, left[i], wrap(right[i], helpWidth-width-3, width+3))
	}
	return b.String()
}

// wrap breaks text into lines of at most room characters, further lines being
// indented.
func wrap(text string, room, indent int) string {
	room = max(room, 24)
	var lines []string
	for _, paragraph := range strings.Split(text, "\n") {
		line := ""
		for _, word := range strings.SplitAfter(paragraph, " ") {
			if line != "" && len(line)+len(strings.TrimRight(word, " ")) > room {
				lines = append(lines, strings.TrimRight(line, " "))
				line = ""
			}
			line += word
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return strings.Join(lines, "\n"+strings.Repeat(" ", indent))
}
