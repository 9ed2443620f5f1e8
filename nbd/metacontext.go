package nbd

import (
	"context"
	"encoding/binary"

	"skerry/nbd/internal/proto"
)

// metaContext answers LIST_META_CONTEXT and SET_META_CONTEXT.
func (h *haggle) metaContext(ctx context.Context, option uint32, data []byte) {
	set := option == proto.OptSetMetaContext
	if set {
		h.metaChosen = false // also if this one fails
	}
	if !h.structured {
		h.replyError(option, proto.RepErrInvalid, "structured replies were not negotiated")
		return
	}
	name, queries, ok := parseMetaContext(data)
	if !ok {
		h.replyError(option, proto.RepErrInvalid, "option cannot be parsed")
		return
	}
	if _, err := h.srv.exports.Describe(ctx, name); err != nil {
		h.replyExportError(option, name, err)
		return
	}
	found := !set && len(queries) == 0
	for _, q := range queries {
		found = found || q == proto.BaseAllocation || q == "base:" && !set
	}
	if found {
		id := uint32(0)
		if set {
			id, h.metaChosen, h.metaExport = contextID, true, name
		}
		h.reply(option, proto.RepMetaContext, binary.BigEndian.AppendUint32(nil, id), []byte(proto.BaseAllocation))
	}
	h.reply(option, proto.RepAck)
}

// parseMetaContext reads the data of both options.
func parseMetaContext(data []byte) (name string, queries []string, ok bool) {
	name, data, ok = cutString(data)
	if !ok || len(data) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(data)
	for data = data[4:]; n > 0; n-- {
		var q string
		if q, data, ok = cutString(data); !ok {
			return "", nil, false
		}
		queries = append(queries, q)
	}
	return name, queries, len(data) == 0
}
