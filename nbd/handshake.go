package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"skerry/nbd/internal/proto"
)

// haggle is the state of option haggling on one connection.
type haggle struct {
	*conn
	noZeroes   bool
	metaExport string // the export that the last SET_META_CONTEXT was for
	metaChosen bool
	out        []byte // replies to the current option
}

// handshake negotiates. After it the connection has a device if the client wants to go on to requests.
func (c *conn) handshake(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.srv.opts.HandshakeTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := c.nc.SetDeadline(deadline); err != nil {
		return err
	}
	c.mu.Lock()
	c.stopLocked()
	c.mu.Unlock()

	h := &haggle{conn: c}
	h.out = binary.BigEndian.AppendUint64(h.out, proto.MagicInit)
	h.out = binary.BigEndian.AppendUint64(h.out, proto.MagicOption)
	h.out = binary.BigEndian.AppendUint16(h.out, proto.FlagFixedNewstyle|proto.FlagNoZeroes)
	if err := h.send(); err != nil {
		return err
	}
	b, err := c.in.next(4)
	if err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(b)
	if flags&^(proto.FlagCFixedNewstyle|proto.FlagCNoZeroes) != 0 {
		return fmt.Errorf("client set unknown flags %#x", flags)
	}
	h.noZeroes = flags&proto.FlagCNoZeroes != 0
	for done := false; !done; {
		if done, err = h.option(ctx); err != nil {
			return err
		}
	}
	return nil
}

// option reads and answers one option. It returns true when haggling is over.
func (h *haggle) option(ctx context.Context) (done bool, err error) {
	b, err := h.in.next(proto.OptionHeaderLen)
	if err != nil {
		return false, err
	}
	if binary.BigEndian.Uint64(b) != proto.MagicOption {
		return false, errors.New("option has a wrong magic number")
	}
	id, length := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	if id == proto.OptExportName {
		return true, h.exportName(ctx, length)
	}
	if length > maxOption {
		if err := h.in.discard(int64(length)); err != nil {
			return false, err
		}
		h.replyError(id, proto.RepErrTooBig, "option is too long")
		return false, h.send()
	}
	data, err := h.in.next(int(length))
	if err != nil {
		return false, err
	}
	switch {
	case id == proto.OptAbort:
		h.reply(id, proto.RepAck)
		h.send() // the client may have gone already, says proto.md
		return true, nil
	case h.stopping.Load():
		h.replyError(id, proto.RepErrShutdown, "server is shutting down")
		return true, h.send()
	case id == proto.OptList:
		h.list(ctx, data)
	case id == proto.OptInfo:
		h.info(ctx, data)
	case id == proto.OptGo:
		done = h.goOn(ctx, data)
	case id == proto.OptStructuredReply:
		if len(data) > 0 {
			h.replyError(id, proto.RepErrInvalid, "option has data")
			break
		}
		h.structured = true
		h.reply(id, proto.RepAck)
	case id == proto.OptListMetaContext, id == proto.OptSetMetaContext:
		h.metaContext(ctx, id, data)
	default:
		h.reply(id, proto.RepErrUnsup)
	}
	return done, h.send()
}

// reply adds a reply to the current option.
func (h *haggle) reply(option, typ uint32, data ...[]byte) {
	h.out = proto.AppendOptionReply(h.out, option, typ, data...)
}

// replyError adds an error that a person can read.
func (h *haggle) replyError(option, typ uint32, message string) {
	h.reply(option, typ, []byte(message[:min(len(message), maxMessage)]))
}

// replyExportError answers that an export cannot be served.
func (h *haggle) replyExportError(option uint32, name string, err error) {
	if errors.Is(err, ErrUnknownExport) {
		h.replyError(option, proto.RepErrUnknown, err.Error())
		return
	}
	h.log.Warn("export cannot be opened", "export", name, "err", err)
	h.replyError(option, proto.RepErrPolicy, err.Error())
}

// send sends the replies.
func (h *haggle) send() error {
	if len(h.out) == 0 {
		return nil
	}
	_, err := h.nc.Write(h.out)
	h.out = h.out[:0]
	return err
}

// exportName ends haggling in the old way, which knows no errors: the connection breaks.
func (h *haggle) exportName(ctx context.Context, length uint32) error {
	if length > proto.MaxString {
		return fmt.Errorf("export name of %d bytes", length)
	}
	b, err := h.in.next(int(length))
	if err != nil {
		return err
	}
	name := string(b)
	if h.stopping.Load() {
		return errors.New("server is shutting down")
	}
	if err := h.open(ctx, name); err != nil {
		return fmt.Errorf("open export %q: %w", name, err)
	}
	h.out = binary.BigEndian.AppendUint64(h.out, uint64(h.dev.Size()))
	h.out = binary.BigEndian.AppendUint16(h.out, h.flags(h.dev.ReadOnly()))
	if !h.noZeroes {
		h.out = append(h.out, make([]byte, proto.ExportNameZeroes)...)
	}
	return h.send()
}

// open opens the device for the requests to come.
func (h *haggle) open(ctx context.Context, name string) error {
	dev, release, err := h.srv.exports.Open(ctx, name)
	if err != nil {
		return err
	}
	h.dev, h.release = dev, release
	h.meta = h.structured && h.metaChosen && h.metaExport == name
	h.conn.log = h.log.With("export", name)
	h.log.Debug("connection opened")
	return nil
}

// flags returns the transmission flags.
func (h *haggle) flags(readOnly bool) uint16 {
	f := proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA | proto.FlagCanMultiConn | proto.FlagSendCache
	if readOnly {
		f |= proto.FlagReadOnly
	} else {
		f |= proto.FlagSendTrim | proto.FlagSendWriteZeroes | proto.FlagSendFastZero
	}
	if h.structured {
		f |= proto.FlagSendDF
	}
	return f
}

// list answers LIST.
func (h *haggle) list(ctx context.Context, data []byte) {
	if len(data) > 0 {
		h.replyError(proto.OptList, proto.RepErrInvalid, "option has data")
		return
	}
	names, err := h.srv.exports.List(ctx)
	if err != nil {
		h.log.Warn("list exports", "err", err)
		h.replyError(proto.OptList, proto.RepErrPolicy, err.Error())
		return
	}
	for _, name := range names {
		if len(name) <= proto.MaxString {
			h.reply(proto.OptList, proto.RepServer, binary.BigEndian.AppendUint32(nil, uint32(len(name))), []byte(name))
		}
	}
	h.reply(proto.OptList, proto.RepAck)
}

// info answers INFO.
func (h *haggle) info(ctx context.Context, data []byte) {
	name, wanted, ok := parseInfo(data)
	if !ok {
		h.replyError(proto.OptInfo, proto.RepErrInvalid, "option cannot be parsed")
		return
	}
	info, err := h.srv.exports.Describe(ctx, name)
	if err != nil {
		h.replyExportError(proto.OptInfo, name, err)
		return
	}
	h.replyInfo(proto.OptInfo, name, wanted, info)
}

// goOn answers GO. It returns true if the export is open.
func (h *haggle) goOn(ctx context.Context, data []byte) bool {
	name, wanted, ok := parseInfo(data)
	if !ok {
		h.replyError(proto.OptGo, proto.RepErrInvalid, "option cannot be parsed")
		return false
	}
	if err := h.open(ctx, name); err != nil {
		h.replyExportError(proto.OptGo, name, err)
		return false
	}
	var info Info
	if wanted[proto.InfoDescription] {
		var err error
		if info, err = h.srv.exports.Describe(ctx, name); err != nil {
			h.log.Debug("describe export", "err", err) // it is open, so it is served
		}
	}
	info.Size, info.ReadOnly = h.dev.Size(), h.dev.ReadOnly()
	h.replyInfo(proto.OptGo, name, wanted, info)
	return true
}

// replyInfo adds the information about an export and the acknowledgement.
func (h *haggle) replyInfo(option uint32, name string, wanted map[uint16]bool, info Info) {
	var b []byte
	b = binary.BigEndian.AppendUint16(b, proto.InfoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(info.Size))
	b = binary.BigEndian.AppendUint16(b, h.flags(info.ReadOnly))
	h.reply(option, proto.RepInfo, b)
	if wanted[proto.InfoName] {
		h.reply(option, proto.RepInfo, binary.BigEndian.AppendUint16(nil, proto.InfoName), []byte(name))
	}
	if d := info.Description; wanted[proto.InfoDescription] && d != "" {
		h.reply(option, proto.RepInfo, binary.BigEndian.AppendUint16(nil, proto.InfoDescription),
			[]byte(d[:min(len(d), proto.MaxString)]))
	}
	if wanted[proto.InfoBlockSize] {
		b = binary.BigEndian.AppendUint16(b[:0], proto.InfoBlockSize)
		b = binary.BigEndian.AppendUint32(b, minBlock)
		b = binary.BigEndian.AppendUint32(b, preferredBlock)
		b = binary.BigEndian.AppendUint32(b, MaxPayload)
		h.reply(option, proto.RepInfo, b)
	}
	h.reply(option, proto.RepAck)
}

// parseInfo reads the data of INFO and GO.
func parseInfo(data []byte) (name string, wanted map[uint16]bool, ok bool) {
	name, data, ok = cutString(data)
	if !ok || len(data) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(data))
	if data = data[2:]; len(data) != 2*n {
		return "", nil, false
	}
	wanted = make(map[uint16]bool)
	for ; len(data) > 0; data = data[2:] {
		wanted[binary.BigEndian.Uint16(data)] = true
	}
	return name, wanted, true
}

// cutString reads a string with its length in front.
func cutString(data []byte) (s string, rest []byte, ok bool) {
	if len(data) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(data)
	if data = data[4:]; n > proto.MaxString || int(n) > len(data) {
		return "", nil, false
	}
	return string(data[:n]), data[n:], true
}
