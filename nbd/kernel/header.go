package kernel

// From include/uapi/linux/nbd-netlink.h.
const (
	familyName  = "nbd"
	familyGroup = "nbd_mc_group"
	version     = 1

	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3
	cmdLinkDead    = 4
	cmdStatus      = 5

	attrIndex       = 1  // u32
	attrSize        = 2  // u64, bytes
	attrBlockSize   = 3  // u64, bytes
	attrTimeout     = 4  // u64, seconds
	attrServerFlags = 5  // u64
	attrClientFlags = 6  // u64
	attrSockets     = 7  // nested: itemSocket, nested: socketFD
	attrDeadTimeout = 8  // u64, seconds
	attrDeviceList  = 9  // nested: itemDevice, nested: deviceIndex, deviceConnected
	attrBackend     = 10 // string

	itemSocket = 1
	socketFD   = 1 // u32

	itemDevice      = 1
	deviceIndex     = 1 // u32
	deviceConnected = 2 // u8
)

// From include/uapi/linux/nbd.h: NBD_CFLAG_*.
const (
	clientDestroyOnDisconnect = 1 << 0
	clientDisconnectOnClose   = 1 << 1
)
