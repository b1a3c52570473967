namespace Lightway.Segmenter

open System
open System.Buffers.Binary

/// `struct virtio_net_hdr` (linux/virtio_net.h): the 10 bytes before each packet on a TUN device opened with
/// IFF_VNET_HDR.
[<Struct>]
type VirtioNetHeader =
    {
        /// Bits: VirtioNetHeader.NeedsCsum, VirtioNetHeader.DataValid.
        Flags: byte
        /// VIRTIO_NET_HDR_GSO_*, as read: bit 0x80 (ECN) may be set. See `BaseGsoType`.
        GsoType: byte
        /// Bytes; a hint only: for forwarded packets the kernel puts the length of its linear part here.
        HdrLen: uint16
        /// Payload bytes of each segment but the last; 0 when the packet is not a superpacket.
        GsoSize: uint16
        /// Bytes from the start of the packet to the transport header. Valid with NeedsCsum only.
        CsumStart: uint16
        /// Bytes from CsumStart to the checksum field. Valid with NeedsCsum only.
        CsumOffset: uint16
    }

    /// The type without the ECN bit.
    member this.BaseGsoType: byte = this.GsoType &&& 0x7Fuy
    /// The packet holds segments; NONE with the ECN bit is still NONE.
    member this.IsSuperpacket: bool = this.BaseGsoType <> 0uy
    /// The transport checksum field holds a partial sum and waits for completion.
    member this.NeedsChecksum: bool = this.Flags &&& 1uy <> 0uy

/// Laws: `tryParse` of what `write` wrote gives the same header; `tryParse` never raises.
/// Fields are in host order on the wire; both supported platforms are little-endian.
[<RequireQualifiedAccess>]
module VirtioNetHeader =
    /// Bytes (TUNGETVNETHDRSZ as the device is created).
    [<Literal>]
    let Size = 10

    /// VIRTIO_NET_HDR_F_NEEDS_CSUM
    [<Literal>]
    let NeedsCsum = 1uy

    /// VIRTIO_NET_HDR_F_DATA_VALID
    [<Literal>]
    let DataValid = 2uy

    /// VIRTIO_NET_HDR_GSO_NONE
    [<Literal>]
    let GsoNone = 0uy

    /// VIRTIO_NET_HDR_GSO_TCPV4
    [<Literal>]
    let GsoTcpV4 = 1uy

    /// VIRTIO_NET_HDR_GSO_UDP: the legacy offload that makes IP fragments; never offered, always refused.
    [<Literal>]
    let GsoUdpFragments = 3uy

    /// VIRTIO_NET_HDR_GSO_TCPV6
    [<Literal>]
    let GsoTcpV6 = 4uy

    /// VIRTIO_NET_HDR_GSO_UDP_L4 (USO): each segment is a datagram; both IP versions.
    [<Literal>]
    let GsoUdpL4 = 5uy

    /// VIRTIO_NET_HDR_GSO_ECN: a bit beside the type, not a type.
    [<Literal>]
    let GsoEcnBit = 0x80uy

    /// Reads the first 10 bytes of `src`. False, and `header` untouched, if there are fewer.
    let tryParse (src: ReadOnlySpan<byte>, header: byref<VirtioNetHeader>) : bool =
        if src.Length < Size then
            false
        else
            header <-
                { Flags = src[0]
                  GsoType = src[1]
                  HdrLen = BinaryPrimitives.ReadUInt16LittleEndian(src.Slice 2)
                  GsoSize = BinaryPrimitives.ReadUInt16LittleEndian(src.Slice 4)
                  CsumStart = BinaryPrimitives.ReadUInt16LittleEndian(src.Slice 6)
                  CsumOffset = BinaryPrimitives.ReadUInt16LittleEndian(src.Slice 8) }

            true

    /// Writes all 10 bytes: buffers are reused. Precondition: `dst` has 10 bytes.
    let write (header: inref<VirtioNetHeader>, dst: Span<byte>) : unit =
        dst[0] <- header.Flags
        dst[1] <- header.GsoType
        BinaryPrimitives.WriteUInt16LittleEndian(dst.Slice 2, header.HdrLen)
        BinaryPrimitives.WriteUInt16LittleEndian(dst.Slice 4, header.GsoSize)
        BinaryPrimitives.WriteUInt16LittleEndian(dst.Slice 6, header.CsumStart)
        BinaryPrimitives.WriteUInt16LittleEndian(dst.Slice 8, header.CsumOffset)
