// Package proto names the constants and fixed layouts of the NBD protocol. They come from
// github.com/pojntfx/go-nbd where it has them, else from the protocol's
// document, https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md.
// All numbers on the wire are big-endian.
package proto

import (
	"encoding/binary"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Magic numbers.
const (
	MagicInit        = protocol.NEGOTIATION_MAGIC_OLDSTYLE
	MagicOption      = protocol.NEGOTIATION_MAGIC_OPTION
	MagicOptionReply = protocol.NEGOTIATION_MAGIC_REPLY
	MagicRequest     = protocol.TRANSMISSION_MAGIC_REQUEST
	MagicSimple      = protocol.TRANSMISSION_MAGIC_REPLY
	MagicChunk       = uint32(0x668e33ef)
)

// Handshake flags of the server, and those with which a client answers.
const (
	FlagFixedNewstyle  = protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE
	FlagNoZeroes       = uint16(1 << 1)
	FlagCFixedNewstyle = uint32(1 << 0)
	FlagCNoZeroes      = uint32(1 << 1)
)

// Options.
const (
	OptExportName      = uint32(1)
	OptAbort           = protocol.NEGOTIATION_ID_OPTION_ABORT
	OptList            = protocol.NEGOTIATION_ID_OPTION_LIST
	OptStartTLS        = uint32(5)
	OptInfo            = protocol.NEGOTIATION_ID_OPTION_INFO
	OptGo              = protocol.NEGOTIATION_ID_OPTION_GO
	OptStructuredReply = uint32(8)
	OptListMetaContext = uint32(9)
	OptSetMetaContext  = uint32(10)
	OptExtendedHeaders = uint32(11)
)

// Types of option replies.
const (
	RepAck         = protocol.NEGOTIATION_TYPE_REPLY_ACK
	RepServer      = protocol.NEGOTIATION_TYPE_REPLY_SERVER
	RepInfo        = protocol.NEGOTIATION_TYPE_REPLY_INFO
	RepMetaContext = uint32(4)
	RepFlagError   = uint32(1 << 31)
	RepErrUnsup    = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED
	RepErrPolicy   = 2 | RepFlagError
	RepErrInvalid  = 3 | RepFlagError
	RepErrUnknown  = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN
	RepErrShutdown = 7 | RepFlagError
	RepErrTooBig   = 9 | RepFlagError
)

// Types of information about an export.
const (
	InfoExport      = protocol.NEGOTIATION_TYPE_INFO_EXPORT
	InfoName        = protocol.NEGOTIATION_TYPE_INFO_NAME
	InfoDescription = protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION
	InfoBlockSize   = protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE
)

// Transmission flags.
const (
	FlagHasFlags        = protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS
	FlagReadOnly        = uint16(1 << 1)
	FlagSendFlush       = uint16(1 << 2)
	FlagSendFUA         = uint16(1 << 3)
	FlagSendTrim        = uint16(1 << 5)
	FlagSendWriteZeroes = uint16(1 << 6)
	FlagSendDF          = uint16(1 << 7)
	FlagCanMultiConn    = protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN
	FlagSendCache       = uint16(1 << 10)
	FlagSendFastZero    = uint16(1 << 11)
)

// Commands.
const (
	CmdRead        = protocol.TRANSMISSION_TYPE_REQUEST_READ
	CmdWrite       = protocol.TRANSMISSION_TYPE_REQUEST_WRITE
	CmdDisc        = protocol.TRANSMISSION_TYPE_REQUEST_DISC
	CmdFlush       = uint16(3)
	CmdTrim        = uint16(4)
	CmdCache       = uint16(5)
	CmdWriteZeroes = uint16(6)
	CmdBlockStatus = uint16(7)
)

// Command flags.
const (
	CmdFlagFUA      = uint16(1 << 0)
	CmdFlagNoHole   = uint16(1 << 1)
	CmdFlagDF       = uint16(1 << 2)
	CmdFlagReqOne   = uint16(1 << 3)
	CmdFlagFastZero = uint16(1 << 4)
)

// Structured reply chunks: the flag of the last one, and types.
const (
	ChunkFlagDone    = uint16(1 << 0)
	ChunkNone        = uint16(0)
	ChunkOffsetData  = uint16(1)
	ChunkOffsetHole  = uint16(2)
	ChunkBlockStatus = uint16(5)
	ChunkFlagError   = uint16(1 << 15)
	ChunkError       = 1 | ChunkFlagError
	ChunkErrorOffset = 2 | ChunkFlagError
)

// Error values.
const (
	EPERM     = protocol.TRANSMISSION_ERROR_EPERM
	EIO       = uint32(5)
	ENOMEM    = uint32(12)
	EINVAL    = protocol.TRANSMISSION_ERROR_EINVAL
	ENOSPC    = uint32(28)
	EOVERFLOW = uint32(75)
	ENOTSUP   = uint32(95)
	ESHUTDOWN = uint32(108)
)

// States of an extent in the base:allocation context.
const (
	StateHole = uint32(1 << 0)
	StateZero = uint32(1 << 1)
)

// BaseAllocation is the name of the one metadata context that the protocol itself defines.
const BaseAllocation = "base:allocation"

// MaxString is the longest string in bytes that the protocol allows: names of exports and contexts, messages.
const MaxString = 4096

// Lengths in bytes of the fixed parts of messages.
const (
	OptionHeaderLen      = 16
	OptionReplyHeaderLen = 20
	RequestLen           = 28
	SimpleLen            = 16
	ChunkLen             = 20
	ExportNameReplyLen   = 10
	ExportNameZeroes     = 124
)

// Request is the header of a request.
type Request struct {
	Flags, Type    uint16
	Cookie, Offset uint64
	Length         uint32
}

// PutRequest writes a header of RequestLen bytes to b.
func PutRequest(b []byte, r Request) {
	_ = b[RequestLen-1] // one bounds check
	binary.BigEndian.PutUint32(b, MagicRequest)
	binary.BigEndian.PutUint16(b[4:], r.Flags)
	binary.BigEndian.PutUint16(b[6:], r.Type)
	binary.BigEndian.PutUint64(b[8:], r.Cookie)
	binary.BigEndian.PutUint64(b[16:], r.Offset)
	binary.BigEndian.PutUint32(b[24:], r.Length)
}

// GetRequest reads a header of RequestLen bytes; ok is false if its magic number is wrong.
func GetRequest(b []byte) (r Request, ok bool) {
	_ = b[RequestLen-1] // one bounds check
	return Request{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: binary.BigEndian.Uint32(b[24:]),
	}, binary.BigEndian.Uint32(b) == MagicRequest
}

// PutSimple writes the header of a simple reply, SimpleLen bytes, to b.
func PutSimple(b []byte, errno uint32, cookie uint64) {
	_ = b[SimpleLen-1] // one bounds check
	binary.BigEndian.PutUint32(b, MagicSimple)
	binary.BigEndian.PutUint32(b[4:], errno)
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// PutChunk writes the header of a structured reply chunk, ChunkLen bytes, to b. length counts the bytes after it.
func PutChunk(b []byte, flags, typ uint16, cookie uint64, length uint32) {
	_ = b[ChunkLen-1] // one bounds check
	binary.BigEndian.PutUint32(b, MagicChunk)
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], typ)
	binary.BigEndian.PutUint64(b[8:], cookie)
	binary.BigEndian.PutUint32(b[16:], length)
}

// AppendOptionReply appends a reply to an option to b.
func AppendOptionReply(b []byte, option, typ uint32, data ...[]byte) []byte {
	n := 0
	for _, d := range data {
		n += len(d)
	}
	b = binary.BigEndian.AppendUint64(b, MagicOptionReply)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, typ)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	for _, d := range data {
		b = append(b, d...)
	}
	return b
}
