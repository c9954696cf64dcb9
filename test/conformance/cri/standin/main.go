// Command standin is, by the name it is called by, what critest expects in its images: nginx and httpd (a server of
// one page that says what it is), nnp (a set-uid program that prints whose rights it has), and pause.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "nnp":
		fmt.Println("Effective uid:", os.Geteuid())
	case "pause":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
		<-c
	default:
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func serve() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	name := filepath.Base(exe)
	if !strings.Contains(os.Args[0], "master process") { // as nginx calls itself
		return syscall.Exec(exe, []string{name + ": master process " + exe}, os.Environ())
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "80"
	}
	if err := os.WriteFile("/var/run/"+name+".pid", fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		return err
	}
	fmt.Println(name + ": serving on port " + port)
	return http.ListenAndServe(":"+port, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "welcome to "+name) }))
}
