package cri

import (
	"sync"
	"unsafe"

	"google.golang.org/protobuf/proto"
)

// What pods and containers were asked to be is kept in the protocol's encoding. Here it is decoded, for as long as the
// same bytes are asked about: a kubelet lists everything each second. What is given out is shared, and not to be
// changed.
var decoded struct {
	sync.RWMutex
	byID map[string]decodedMeta
}

type decodedMeta struct {
	raw     *byte // of the encoding
	message proto.Message
	item    []byte // what lists tell in that state, encoded; nil if none was asked for
	state   int32
}

// maxDecoded bounds how many are kept; more are forgotten all at once.
const maxDecoded = 4096

// decode gives what make makes of the bytes that are kept with a pod or container.
func decode[M proto.Message](id string, raw []byte, make func() M) M {
	decoded.RLock()
	d := decoded.byID[id]
	decoded.RUnlock()
	if m, ok := d.message.(M); ok && d.raw == unsafe.SliceData(raw) {
		return m
	}
	m := make()
	decoded.Lock()
	defer decoded.Unlock()
	if decoded.byID == nil || len(decoded.byID) >= maxDecoded {
		decoded.byID = map[string]decodedMeta{}
	}
	decoded.byID[id] = decodedMeta{raw: unsafe.SliceData(raw), message: m}
	return m
}

// forget drops what is decoded of a pod or container that is gone.
func forget(id string) {
	decoded.Lock()
	defer decoded.Unlock()
	delete(decoded.byID, id)
}
