//go:build cri

package main

import (
	"log"
	"path/filepath"

	apicri "cale/api/cri"
	"cale/engine"
)

func init() {
	serveCRI = func(e *engine.Engine, s settings) (cri, error) {
		l, err := apicri.Listen(filepath.Join(s.run, "cri.sock"))
		if err != nil {
			return nil, err
		}
		srv, err := apicri.New(e, apicri.Options{Version: version, Root: s.root, StreamAddress: s.criStream})
		if err != nil {
			l.Close()
			return nil, err
		}
		go func() {
			if err := srv.Serve(l); err != nil {
				log.Printf("cri: %v", err)
			}
		}()
		log.Printf("caled listens on %s", l.Addr())
		return srv, nil
	}
}
