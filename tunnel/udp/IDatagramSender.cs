namespace Lightway.Tunnel.Udp;

/// <summary>Sends datagrams to one peer: the socket, or a script in a test.</summary>
public interface IDatagramSender
{
    /// <summary>Sends <paramref name="data"/> in one system call.</summary>
    /// <param name="path">Peer and local address.</param>
    /// <param name="data">One datagram, or several of equal length (the last may be shorter) back to back.</param>
    /// <param name="segmentSize">Bytes per datagram if <paramref name="data"/> holds several, else 0.</param>
    /// <param name="tos">The second byte of the outside IPv4 header, or the traffic class of IPv6.</param>
    /// <returns>Bytes accepted (all of them), or -errno.</returns>
    int Send(in OutsideAddress path, ReadOnlySpan<byte> data, int segmentSize, byte tos = 0);

    /// <summary>
    /// Sends one datagram, which may be fragmented on its way, also by a sender that otherwise forbids that: nothing is
    /// known of the path yet.
    /// </summary>
    /// <returns>As <see cref="Send(in OutsideAddress, ReadOnlySpan{byte}, int, byte)"/>.</returns>
    int SendFragmentable(in OutsideAddress path, ReadOnlySpan<byte> datagram) => Send(path, datagram, segmentSize: 0);

    /// <summary>Sends runs of datagrams, each to its own peer, in as few system calls as possible: sendmmsg(2).</summary>
    /// <param name="runs">Oldest first; at most <see cref="SendBatch.MaxRuns"/>.</param>
    /// <param name="bytes">The bytes that <see cref="DatagramRun.Start"/> counts from.</param>
    /// <returns>Runs accepted, from the first on; or -errno if the first one was not.</returns>
    int Send(ReadOnlySpan<DatagramRun> runs, ReadOnlySpan<byte> bytes);
}

/// <summary>Datagrams of one peer back to back: all but the last have the length of the first.</summary>
/// <param name="Path">Where they go.</param>
/// <param name="Start">Where their bytes start.</param>
/// <param name="Length">Bytes of all of them.</param>
/// <param name="Stride">Bytes of every datagram but the last.</param>
/// <param name="Tos">The second byte of the outside IPv4 header, or the traffic class of IPv6: one for all.</param>
public record struct DatagramRun(OutsideAddress Path, int Start, int Length, int Stride, byte Tos)
{
    /// <summary>Value of the UDP_SEGMENT control message; 0 for a single datagram.</summary>
    public readonly int SegmentSize => Length > Stride ? Stride : 0;
}

/// <summary>Where a connection's datagrams go, and the address of ours they come from.</summary>
/// <param name="Peer">The peer's socket address.</param>
/// <param name="Local">Our address, if the socket is bound to the wildcard.</param>
public readonly record struct OutsideAddress(PeerAddress Peer, LocalAddress Local);
