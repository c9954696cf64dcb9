// Package format prints what the engine lists: tables that line up, JSON lines
// and Go templates, in Docker's shapes.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// Write prints rows in a format: "table TEMPLATE" (with a line of headings,
// which is header put through the same template), "json", or a template alone
// for each row. T is a struct of strings whose names the templates use.
func Write[T any](w io.Writer, format string, header T, rows []T) error {
	format = strings.TrimSpace(format)
	if format == "json" {
		return writeJSON(w, rows)
	}
	text, table := strings.CutPrefix(format, "table")
	if table {
		text = strings.TrimSpace(text)
	}
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := Template(text)
	if err != nil {
		return err
	}
	if !table {
		if len(rows) == 0 {
			return checkFields(text, header)
		}
		for _, row := range rows {
			if err := line(w, t, row); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	head, err := template.New("").Funcs(functions).Funcs(headerFunctions).Parse(text)
	if err != nil {
		return parseError(err)
	}
	if err := line(tw, head, header); err != nil {
		return err
	}
	for _, row := range rows {
		if err := line(tw, t, row); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// checkFields finds a field that rows don't have, where there are none to show it.
func checkFields(text string, header any) error {
	t, err := template.New("").Funcs(functions).Funcs(headerFunctions).Parse(text)
	if err != nil {
		return parseError(err)
	}
	err = line(io.Discard, t, header)
	if err == nil || !strings.Contains(err.Error(), "can't evaluate field") {
		return nil // what else is wrong with it would be so with headings only
	}
	return err
}

// Processes prints a list of processes as a table that lines up.
func Processes(w io.Writer, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 20, 1, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

func writeJSON[T any](w io.Writer, rows []T) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, row := range rows {
		if err := e.Encode(row); err != nil {
			return err
		}
	}
	return nil
}

func line(w io.Writer, t *template.Template, data any) error {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// Template parses a template with the functions of Docker's: json, split,
// join, title, lower, upper, pad, truncate.
func Template(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(functions).Parse(text)
	if err != nil {
		return nil, parseError(err)
	}
	return t, nil
}

func parseError(err error) error { return fmt.Errorf("template parsing error: %w", err) }

var functions = template.FuncMap{
	"json": func(v any) string {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return err.Error()
		}
		return strings.TrimSpace(b.String())
	},
	"split":    strings.Split,
	"join":     join,
	"title":    title,
	"lower":    strings.ToLower,
	"upper":    strings.ToUpper,
	"pad":      pad,
	"truncate": truncate,
	"println":  fmt.Sprintln,
}

// headerFunctions leave a heading as it is.
var headerFunctions = template.FuncMap{
	"json":     func(v any) any { return v },
	"split":    func(s, _ string) string { return s },
	"join":     func(v any, _ string) any { return v },
	"title":    func(s string) string { return s },
	"lower":    func(s string) string { return s },
	"upper":    func(s string) string { return s },
	"truncate": func(s string, _ int) string { return s },
}

func join(list any, sep string) (string, error) {
	switch l := list.(type) {
	case []string:
		return strings.Join(l, sep), nil
	case []any:
		parts := make([]string, len(l))
		for i, v := range l {
			parts[i] = fmt.Sprint(v)
		}
		return strings.Join(parts, sep), nil
	case nil:
		return "", nil
	}
	return "", fmt.Errorf("join needs a list, not %T", list)
}

func title(s string) string {
	start := true
	return strings.Map(func(r rune) rune {
		up := start
		start = unicode.IsSpace(r)
		if up {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
}

func truncate(s string, n int) string {
	if n < 0 || utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n])
}

// Ellipsis shortens s to n characters, the last one being "…" when something
// was left out.
func Ellipsis(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n <= 1 {
		return string([]rune(s)[:n])
	}
	return string([]rune(s)[:n-1]) + "…"
}

// ShortID is a short form of an id or digest: 12 digits, without algorithm.
func ShortID(id string) string {
	if _, rest, ok := strings.Cut(id, ":"); ok {
		id = rest
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}
