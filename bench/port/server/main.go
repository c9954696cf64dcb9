// Command server is what bench/port has run in containers: it serves on TCP port 7000 what the first byte of a connection
// asks for.
//
//	d  bytes, as many as the other side takes
//	u  nothing, and takes all bytes
//	e  every byte back
package main

import (
	"io"
	"log"
	"net"
)

func main() {
	l, err := net.Listen("tcp", ":7000")
	if err != nil {
		log.Fatal(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serve(c)
	}
}

func serve(c net.Conn) {
	defer c.Close()
	b := make([]byte, 128<<10)
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return
	}
	for kind := b[0]; ; {
		n := len(b)
		var err error
		if kind != 'd' {
			n, err = c.Read(b)
		}
		if err == nil && kind != 'u' {
			_, err = c.Write(b[:n])
		}
		if err != nil {
			return
		}
	}
}
