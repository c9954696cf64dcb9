// Command mkimage makes a small image for trying things by hand.
//
//	mkimage -registry 127.0.0.1:5000 busybox:latest
//	mkimage -layout folder -static hello hello:latest
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"cale/test/images"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run() error {
	registry := flag.String("registry", "", "push to the registry at this `address` (plain HTTP)")
	layout := flag.String("layout", "", "write to this OCI layout `folder`")
	static := flag.String("static", "", "make the image of this static `binary` instead of busybox; \"hello\" is our own greeting program")
	flag.Parse()
	if flag.NArg() != 1 || (*registry == "") == (*layout == "") {
		return errors.New("give -registry or -layout, and one image name")
	}
	name := flag.Arg(0)
	build := images.Busybox
	if *static == "hello" {
		*static = ""
		build = func() (*images.Image, error) { return images.Static("") }
	} else if *static != "" {
		build = func() (*images.Image, error) { return images.Static(*static) }
	}
	img, err := build()
	if err != nil {
		return err
	}
	if *layout != "" {
		err = img.WriteLayout(*layout, name)
	} else {
		err = img.Push(context.Background(), *registry, name)
	}
	if err != nil {
		return err
	}
	fmt.Println(img.Manifest.Digest())
	return nil
}
