namespace Lightway.Tunnel.Udp;

/// <summary>Sends datagrams to one peer: the socket, or a script in a test.</summary>
public interface IDatagramSender
{
    /// <summary>Sends <paramref name="data"/> in one system call.</summary>
    /// <param name="path">Peer and local address.</param>
    /// <param name="data">One datagram, or several of equal length (the last may be shorter) back to back.</param>
    /// <param name="segmentSize">Bytes per datagram if <paramref name="data"/> holds several, else 0.</param>
    /// <returns>Bytes accepted (all of them), or -errno.</returns>
    int Send(in OutsideAddress path, ReadOnlySpan<byte> data, int segmentSize);
}

/// <summary>Where a connection's datagrams go, and the address of ours they come from.</summary>
/// <param name="Peer">The peer's socket address.</param>
/// <param name="Local">Our address, if the socket is bound to the wildcard.</param>
public readonly record struct OutsideAddress(PeerAddress Peer, LocalAddress Local);
