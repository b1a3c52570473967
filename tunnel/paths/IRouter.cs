using Lightway.Protocol;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel.Paths;

/// <summary>Finds the connection of a packet or datagram: the tables of a program.</summary>
public interface IRouter
{
    /// <summary>Finds whose packet came from the TUN device; called once per superpacket or packet.</summary>
    /// <param name="packet">An IP packet of any kind.</param>
    /// <returns>The connection, which may belong to another worker; null: the packet is not for a peer; counted.</returns>
    Connection? Find(ReadOnlySpan<byte> packet);

    /// <summary>The sender of a packet for which <see cref="Find"/> found nobody is told so.</summary>
    bool IsReported(ReadOnlySpan<byte> packet);

    /// <summary>Hands a datagram to its connection; called once per datagram.</summary>
    /// <param name="header">Well-formed wire header of a known version.</param>
    /// <param name="from">The sender, and the address of ours that it wrote to.</param>
    /// <param name="body">The bytes behind the header.</param>
    void Dispatch(in WireHeader header, in OutsideAddress from, ReadOnlySpan<byte> body, long now);
}
