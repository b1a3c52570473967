namespace Lightway.Protocol

/// How long a packet may be so that its datagram is not longer than the path allows (docs/protocol.md, section 9). Sizes in
/// bytes. Laws: a packet of `insideMtu` bytes fits by every path that it may take, and one byte more does not by one of
/// them; a device's MTU is never above what fits, and never below what IPv4 requires of a link if that much fits.
[<RequireQualifiedAccess>]
module Sizes =
    /// DTLS 1.3 (RFC 9147 §4): unified header 5, content type 1, tag 16.
    [<Literal>]
    let RecordOverhead = 22

    /// The smallest MTU of an IPv4 link (RFC 791 §3.2).
    [<Literal>]
    let MinInsideMtu = 68

    /// The longest IPv4 packet; a stream carries it whatever the path.
    [<Literal>]
    let MaxPacket = 65535

    /// What a client's device has if the server does not say what its own has.
    [<Literal>]
    let DefaultInsideMtu = 1350

    [<Literal>]
    let private UdpHeader = 8

    let private ipHeader (isIPv6: bool) : int = if isIPv6 then 40 else 20

    /// Bytes around a frame, kind byte and all, that is alone in its DTLS record.
    let frameOverhead (isIPv6: bool) : int =
        ipHeader isIPv6 + UdpHeader + WireHeader.Size + RecordOverhead

    /// Bytes around a packet that a DTLS record carries in a Data frame.
    let dtlsOverhead (isIPv6: bool) : int =
        frameOverhead isIPv6 + Frame.DataHeaderSize

    /// Bytes around a packet of the Expresslane.
    let expresslaneOverhead (isIPv6: bool) : int =
        ipHeader isIPv6 + UdpHeader + WireHeader.Size + ExpresslanePacket.Overhead

    /// The longest packet for a peer. With the Expresslane a packet may go either way, as its keys come and go: it must fit
    /// both. May be negative.
    let insideMtu (outsideMtu: int, isIPv6: bool, expresslane: bool) : int =
        if expresslane then
            outsideMtu - max (dtlsOverhead isIPv6) (expresslaneOverhead isIPv6)
        else
            outsideMtu - dtlsOverhead isIPv6

    /// Bytes of a packet of `length` bytes that each of its fragments carries, but the last, which has what is left: as few
    /// fragments as possible, none longer than 8 bytes more than the others need, so that neither half of two is needlessly
    /// long. `outsideMtu` is what the path allows, at least 172. A multiple of 8.
    let fragmentPayload (length: int, outsideMtu: int, isIPv6: bool) : int =
        let most = (outsideMtu - frameOverhead isIPv6 - Frame.FragmentHeaderSize) &&& ~~~7
        let count = (length + most - 1) / most
        ((length + count - 1) / count + 7) &&& ~~~7

    /// The smallest outside MTU that leaves room for the smallest inside MTU, by every path.
    let minOutsideMtu: int =
        MinInsideMtu + max (dtlsOverhead true) (expresslaneOverhead true)

    /// The MTU of a client's device: what the server has granted, as far as it fits. `longest` is `insideMtu`; a grant that
    /// no link can have is none.
    let deviceMtu (granted: int, longest: int) : int =
        min longest (if granted < MinInsideMtu then DefaultInsideMtu else granted)
