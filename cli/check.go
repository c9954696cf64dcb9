package cli

import (
	"fmt"
	"strings"

	"cale/cli/format"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func (a *App) imageWhyCommand() *cobra.Command {
	c := &cobra.Command{Use: "why [OPTIONS] IMAGE|DIGEST", Args: exactly(1), ValidArgsFunction: a.completeImages,
		Long: "Tell what holds an image, a blob or an unpacked layer.\nWithout a holder it goes with the next prune."}
	layout := c.Flags().StringP("format", "f", "", inspectUsage)
	noTrunc := c.Flags().Bool("no-trunc", false, "Don't truncate output")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		why, err := api.ImageWhy(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *layout != "" {
			return a.printOne(*layout, why)
		}
		fmt.Fprintf(a.Out, "%s %s", why.Kind, why.Digest)
		if why.Size > 0 {
			fmt.Fprintf(a.Out, ", %s", units.HumanSize(float64(why.Size)))
		}
		if len(why.Holders) == 0 {
			fmt.Fprintln(a.Out, "\nNothing holds it: the next prune removes it.")
			return nil
		}
		fmt.Fprint(a.Out, "\n\n")
		rows := make([]format.Holder, len(why.Holders))
		for i, h := range why.Holders {
			path := h.Path
			if !*noTrunc {
				path = nil
				for _, d := range h.Path {
					path = append(path, format.ShortID(d))
				}
			}
			rows[i] = format.Holder{Kind: h.Kind, Name: h.Name, Through: strings.Join(path, " > ")}
		}
		return format.Write(a.Out, format.HolderTable, format.HolderHeader, rows)
	}
	return c
}

func (a *App) systemCheckCommand() *cobra.Command {
	c := &cobra.Command{Use: "check [OPTIONS]", Args: noArgs,
		Long: "Read back all that images and containers are made of: blobs against their digests,\nnames and containers against what they refer to, unpacked layers against their blobs."}
	layout := c.Flags().StringP("format", "f", "", inspectUsage)
	repair := c.Flags().Bool("repair", false, "Remove damaged blobs, so that the next pull fetches them, and unpack damaged layers anew")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		r, err := api.SystemCheck(cmd.Context(), *repair)
		if err != nil {
			return err
		}
		left := 0
		for _, p := range r.Problems {
			if p.Repaired == "" {
				left++
			}
		}
		if *layout != "" {
			err = a.printOne(*layout, r)
		} else {
			for _, p := range r.Problems {
				fmt.Fprintf(a.Out, "%s: %s\n", p.Object, p.Text)
				if p.Repaired != "" {
					fmt.Fprintf(a.Out, "  %s\n", p.Repaired)
				}
			}
			fmt.Fprintf(a.Out, "Checked %s: %d %s, %d %s, %d %s, %d %s\n", units.HumanSize(float64(r.Bytes)), r.Blobs, plural("blob", r.Blobs),
				r.Layers, plural("layer", r.Layers), r.Images, plural("image", r.Images), r.Containers, plural("container", r.Containers))
			if r.Unverified > 0 {
				fmt.Fprintf(a.Out, "Not compared, as their blobs are not here: %d %s\n", r.Unverified, plural("layer", r.Unverified))
			}
			fmt.Fprintf(a.Out, "Problems: %d, repaired: %d\n", len(r.Problems), len(r.Problems)-left)
		}
		if err == nil && left > 0 {
			return &Exit{Code: 1}
		}
		return err
	}
	return c
}
