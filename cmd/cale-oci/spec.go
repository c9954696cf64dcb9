package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"cale/runtime"
	"cale/runtime/spec"
)

func cmdSpec(a *app, args []string) error {
	var rootless, explain bool
	var bundle string
	var f flags
	f.bool(&rootless, "rootless")
	f.bool(&explain, "explain")
	f.str(&bundle, "bundle", "b")
	args, err := f.parse(args, true)
	if err != nil {
		return err
	}
	if err := exactly("spec", args, 0, 0); err != nil {
		return err
	}
	if explain {
		if bundle == "" {
			bundle = "."
		}
		return runtime.Explain(bundle, os.Stdout)
	}
	if bundle != "" {
		if err := os.Chdir(bundle); err != nil {
			return err
		}
	}
	s := spec.Default()
	if rootless {
		spec.Rootless(s, os.Geteuid(), os.Getegid())
	}
	raw, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	out, err := os.OpenFile(spec.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("File %s exists. Remove it first", spec.File)
	}
	if err != nil {
		return err
	}
	_, err = out.Write(append(raw, '\n'))
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}
