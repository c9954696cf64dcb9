// Command hello is the smallest useful content of an image: it greets, or does
// one small thing that tests need.
//
//	hello                 print a greeting
//	hello echo WORDS      print the words
//	hello env             print the environment
//	hello cat             copy input to output
//	hello sleep SECONDS   wait
//	hello exit CODE       end with the code
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(2)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		fmt.Println("Hello from Cale!")
		return nil
	}
	number := func() (int, error) {
		if len(args) != 2 {
			return 0, fmt.Errorf("%s needs one number", args[0])
		}
		return strconv.Atoi(args[1])
	}
	switch args[0] {
	case "echo":
		fmt.Println(strings.Join(args[1:], " "))
	case "env":
		for _, e := range os.Environ() {
			fmt.Println(e)
		}
	case "cat":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "sleep":
		n, err := number()
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(n) * time.Second)
	case "exit":
		n, err := number()
		if err != nil {
			return err
		}
		os.Exit(n)
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
	return nil
}
