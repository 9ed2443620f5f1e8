package client

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"skerry/nbd/internal/proto"
)

const maxOptionReply = 64 << 10

// Handshake is one connection during option haggling. Its methods are used by one goroutine.
type Handshake struct {
	Conn net.Conn
	// Structured says that structured replies were negotiated.
	Structured bool
	// Contexts holds the metadata contexts that were selected last.
	Contexts []Context

	noZeroes bool
}

// Context is a metadata context that a server offers or that was selected.
type Context struct {
	ID   uint32
	Name string
}

// OptionReply is one reply to an option.
type OptionReply struct {
	Type uint32
	Data []byte
}

// Export is what a server says of an export.
type Export struct {
	Name           string
	Description    string
	Size           int64 // bytes
	Flags          uint16
	MinBlock       uint32
	PreferredBlock uint32
	MaxPayload     uint32
}

// NewHandshake reads the server's greeting and answers it. It uses the flags that the server offers.
func NewHandshake(conn net.Conn) (*Handshake, error) {
	b := make([]byte, 18)
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, fmt.Errorf("read greeting: %w", err)
	}
	if binary.BigEndian.Uint64(b) != proto.MagicInit || binary.BigEndian.Uint64(b[8:]) != proto.MagicOption {
		return nil, violated("greeting %x", b)
	}
	flags := binary.BigEndian.Uint16(b[16:])
	if flags&proto.FlagFixedNewstyle == 0 {
		return nil, violated("server does not speak fixed newstyle")
	}
	h := &Handshake{Conn: conn, noZeroes: flags&proto.FlagNoZeroes != 0}
	answer := proto.FlagCFixedNewstyle
	if h.noZeroes {
		answer |= proto.FlagCNoZeroes
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, answer)); err != nil {
		return nil, fmt.Errorf("answer greeting: %w", err)
	}
	return h, nil
}

// Send sends an option. It is for EXPORT_NAME and for tests; else Option is meant.
func (h *Handshake) Send(option uint32, data []byte) error {
	var b []byte
	b = binary.BigEndian.AppendUint64(b, proto.MagicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	if _, err := h.Conn.Write(append(b, data...)); err != nil {
		return fmt.Errorf("send option %d: %w", option, err)
	}
	return nil
}

// Option sends an option and returns the replies before the final acknowledgement. An error reply is an *OptionError.
func (h *Handshake) Option(option uint32, data []byte) ([]OptionReply, error) {
	if err := h.Send(option, data); err != nil {
		return nil, err
	}
	return h.Replies(option)
}

// Replies reads the replies to an option that was sent.
func (h *Handshake) Replies(option uint32) ([]OptionReply, error) {
	var all []OptionReply
	for {
		r, err := h.reply(option)
		switch {
		case err != nil:
			return all, fmt.Errorf("read reply to option %d: %w", option, err)
		case r.Type&proto.RepFlagError != 0:
			return all, &OptionError{Option: option, Type: r.Type, Message: string(r.Data)}
		case r.Type == proto.RepAck:
			if len(r.Data) > 0 {
				return all, violated("acknowledgement with data")
			}
			return all, nil
		}
		all = append(all, r)
	}
}

func (h *Handshake) reply(option uint32) (OptionReply, error) {
	b := make([]byte, proto.OptionReplyHeaderLen)
	if _, err := io.ReadFull(h.Conn, b); err != nil {
		return OptionReply{}, err
	}
	n := binary.BigEndian.Uint32(b[16:])
	switch {
	case binary.BigEndian.Uint64(b) != proto.MagicOptionReply:
		return OptionReply{}, violated("magic number of option reply %x", b[:8])
	case binary.BigEndian.Uint32(b[8:]) != option:
		return OptionReply{}, violated("reply to option %d", binary.BigEndian.Uint32(b[8:]))
	case n > maxOptionReply:
		return OptionReply{}, violated("option reply of %d bytes", n)
	}
	r := OptionReply{Type: binary.BigEndian.Uint32(b[12:]), Data: make([]byte, n)}
	_, err := io.ReadFull(h.Conn, r.Data)
	return r, err
}

// StructuredReply negotiates structured replies.
func (h *Handshake) StructuredReply() error {
	r, err := h.Option(proto.OptStructuredReply, nil)
	if err == nil && len(r) > 0 {
		err = violated("replies of type %d to STRUCTURED_REPLY", r[0].Type)
	}
	h.Structured = h.Structured || err == nil
	return err
}

// List returns the names of the server's exports.
func (h *Handshake) List() ([]string, error) {
	replies, err := h.Option(proto.OptList, nil)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range replies {
		if r.Type != proto.RepServer || len(r.Data) < 4 || int64(binary.BigEndian.Uint32(r.Data)) > int64(len(r.Data)-4) {
			return nil, violated("reply of type %d, %d bytes, to LIST", r.Type, len(r.Data))
		}
		names = append(names, string(r.Data[4:][:binary.BigEndian.Uint32(r.Data)]))
	}
	return names, nil
}

// ListMetaContexts returns the contexts of an export that match queries; all, if there are none.
func (h *Handshake) ListMetaContexts(export string, queries ...string) ([]Context, error) {
	return h.metaContexts(proto.OptListMetaContext, export, queries)
}

// SetMetaContexts selects contexts.
func (h *Handshake) SetMetaContexts(export string, queries ...string) (err error) {
	h.Contexts, err = h.metaContexts(proto.OptSetMetaContext, export, queries)
	return err
}

func (h *Handshake) metaContexts(option uint32, export string, queries []string) ([]Context, error) {
	replies, err := h.Option(option, MetaContextData(export, queries...))
	if err != nil {
		return nil, err
	}
	var all []Context
	for _, r := range replies {
		if r.Type != proto.RepMetaContext || len(r.Data) < 5 {
			return nil, violated("reply of type %d, %d bytes, to option %d", r.Type, len(r.Data), option)
		}
		c := Context{ID: binary.BigEndian.Uint32(r.Data), Name: string(r.Data[4:])}
		for _, other := range all {
			if option == proto.OptSetMetaContext && other.ID == c.ID || other.Name == c.Name {
				return nil, violated("context %q, id %d, twice", c.Name, c.ID)
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// Info asks for the facts of an export.
func (h *Handshake) Info(export string) (Export, error) { return h.info(proto.OptInfo, export) }

// Go ends haggling: requests follow, unless it fails.
func (h *Handshake) Go(export string) (Export, error) { return h.info(proto.OptGo, export) }

func (h *Handshake) info(option uint32, export string) (Export, error) {
	e := Export{Name: export, MinBlock: 1, PreferredBlock: 4096, MaxPayload: 32 << 20}
	replies, err := h.Option(option, InfoData(export, proto.InfoName, proto.InfoDescription, proto.InfoBlockSize))
	if err != nil {
		return e, err
	}
	seen := make(map[uint16]bool)
	for _, r := range replies {
		if r.Type != proto.RepInfo || len(r.Data) < 2 {
			return e, violated("reply of type %d, %d bytes, to option %d", r.Type, len(r.Data), option)
		}
		typ := binary.BigEndian.Uint16(r.Data)
		if seen[typ] {
			return e, violated("information %d twice", typ)
		}
		seen[typ] = true
		if err := e.set(typ, r.Data[2:]); err != nil {
			return e, err
		}
	}
	if !seen[proto.InfoExport] {
		return e, violated("no NBD_INFO_EXPORT")
	}
	return e, h.checkFlags(e)
}

// set takes over one information.
func (e *Export) set(typ uint16, b []byte) error {
	switch {
	case typ == proto.InfoExport && len(b) == 10:
		e.Size = int64(binary.BigEndian.Uint64(b))
		e.Flags = binary.BigEndian.Uint16(b[8:])
	case typ == proto.InfoName:
		e.Name = string(b)
	case typ == proto.InfoDescription:
		e.Description = string(b)
	case typ == proto.InfoBlockSize && len(b) == 12:
		e.MinBlock = binary.BigEndian.Uint32(b)
		e.PreferredBlock = binary.BigEndian.Uint32(b[4:])
		e.MaxPayload = binary.BigEndian.Uint32(b[8:])
		if !powerOfTwo(e.MinBlock) || e.MinBlock > 64<<10 || !powerOfTwo(e.PreferredBlock) ||
			e.PreferredBlock < max(512, e.MinBlock) || e.MaxPayload < e.PreferredBlock {
			return violated("block sizes %d, %d, %d", e.MinBlock, e.PreferredBlock, e.MaxPayload)
		}
	case typ <= proto.InfoBlockSize:
		return violated("information %d of %d bytes", typ, len(b))
	}
	return nil
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

// ExportName ends haggling in the old way. A refusal shows as a closed connection.
func (h *Handshake) ExportName(export string) (Export, error) {
	e := Export{Name: export, MinBlock: 1, PreferredBlock: 4096, MaxPayload: 32 << 20}
	if err := h.Send(proto.OptExportName, []byte(export)); err != nil {
		return e, err
	}
	b := make([]byte, proto.ExportNameReplyLen)
	if !h.noZeroes {
		b = append(b, make([]byte, proto.ExportNameZeroes)...)
	}
	if _, err := io.ReadFull(h.Conn, b); err != nil {
		return e, fmt.Errorf("read reply to EXPORT_NAME: %w", err)
	}
	if err := e.set(proto.InfoExport, b[:proto.ExportNameReplyLen]); err != nil {
		return e, err
	}
	return e, h.checkFlags(e)
}

func (h *Handshake) checkFlags(e Export) error {
	if e.Flags&proto.FlagHasFlags == 0 || e.Flags&proto.FlagSendDF != 0 && !h.Structured ||
		e.Flags&proto.FlagSendFastZero != 0 && e.Flags&proto.FlagSendWriteZeroes == 0 || e.Size < 0 {
		return violated("transmission flags %#x, size %d", e.Flags, e.Size)
	}
	return nil
}

// Abort ends haggling and the connection.
func (h *Handshake) Abort() error {
	_, err := h.Option(proto.OptAbort, nil)
	if cerr := h.Conn.Close(); err == nil {
		err = cerr
	}
	return err
}

// InfoData returns the data of the options INFO and GO.
func InfoData(export string, wanted ...uint16) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(export))), export...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(wanted)))
	for _, w := range wanted {
		b = binary.BigEndian.AppendUint16(b, w)
	}
	return b
}

// MetaContextData returns the data of the options LIST_META_CONTEXT and SET_META_CONTEXT.
func MetaContextData(export string, queries ...string) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(export))), export...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(q))), q...)
	}
	return b
}
