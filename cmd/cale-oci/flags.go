package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// helpError asks for a command's usage.
type helpError struct{ options []string }

func (*helpError) Error() string { return "help" }

// flags reads options the way runc's command line does: --name value, --name=value, single letters, and unless
// told otherwise also after the arguments. The standard library's package costs a start more than this file.
type flags struct {
	set map[string]func(value string) error
	yes map[string]bool // takes no value
}

func (f *flags) add(set func(string) error, isBool bool, names []string) {
	if f.set == nil {
		f.set, f.yes = map[string]func(string) error{}, map[string]bool{}
	}
	for _, n := range names {
		f.set[n], f.yes[n] = set, isBool
	}
}

func (f *flags) str(p *string, names ...string) {
	f.add(func(v string) error { *p = v; return nil }, false, names)
}

func (f *flags) list(p *[]string, names ...string) {
	f.add(func(v string) error { *p = append(*p, v); return nil }, false, names)
}

func (f *flags) bool(p *bool, names ...string) {
	f.add(func(v string) (err error) { *p, err = strconv.ParseBool(v); return err }, true, names)
}

func (f *flags) int(p *int, names ...string) {
	f.add(func(v string) (err error) { *p, err = strconv.Atoi(v); return err }, false, names)
}

// count is of what can't be fewer than none.
func (f *flags) count(p *uint, names ...string) {
	f.add(func(v string) error {
		n, err := strconv.ParseUint(v, 10, 31)
		*p = uint(n)
		return err
	}, false, names)
}

// parse returns the arguments that are no options; with anywhere, options may come after them.
func (f *flags) parse(args []string, anywhere bool) (rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			return append(rest, args[1:]...), nil
		}
		if len(arg) < 2 || arg[0] != '-' {
			if !anywhere {
				return args, nil
			}
			rest = append(rest, arg)
			args = args[1:]
			continue
		}
		args = args[1:]
		name, value, hasValue := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
		set, ok := f.set[name]
		if !ok {
			if name == "h" || name == "help" {
				return nil, &helpError{f.listed()}
			}
			return nil, fmt.Errorf("flag provided but not defined: -%s", name)
		}
		switch {
		case hasValue:
		case f.yes[name]:
			value = "true"
		case len(args) == 0:
			return nil, fmt.Errorf("flag needs an argument: -%s", name)
		default:
			value, args = args[0], args[1:]
		}
		if err := set(value); err != nil {
			return nil, fmt.Errorf("invalid value %q for flag -%s", value, name)
		}
	}
	return rest, nil
}

// listed are the options as help lists them, by name.
func (f *flags) listed() []string {
	var list []string
	for n := range f.set {
		dashes, value := "--", " value"
		if len(n) == 1 {
			dashes = "-"
		}
		if f.yes[n] {
			value = ""
		}
		list = append(list, dashes+n+value)
	}
	slices.Sort(list)
	return list
}

// exactly checks the number of arguments.
func exactly(command string, args []string, least, most int) error {
	switch {
	case len(args) < least && least == most:
		return fmt.Errorf("cale-oci: %q requires exactly %d argument(s)", command, least)
	case len(args) < least:
		return fmt.Errorf("cale-oci: %q requires a minimum of %d argument(s)", command, least)
	case most >= 0 && len(args) > most:
		return fmt.Errorf("cale-oci: %q requires a maximum of %d argument(s)", command, most)
	}
	return nil
}
