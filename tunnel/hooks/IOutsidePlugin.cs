namespace Lightway.Tunnel.Hooks;

/// <summary>
/// Sees the datagrams of one worker as they are on the wire, of all its peers and of strangers: wire header and what is behind
/// it. Plugins are asked in the order of their list about what comes in, and in the reverse order about what goes out.
/// TCP connections are not shown to them. Called on the worker's thread, per datagram: it must neither block nor throw.
/// </summary>
public interface IOutsidePlugin
{
    /// <summary>Came in, from anybody; nothing about it has been checked.</summary>
    /// <param name="datagram">May be changed in place.</param>
    PluginVerdict Ingress(Span<byte> datagram);

    /// <summary>Goes out. Called once for each datagram, however often the kernel refuses it.</summary>
    /// <param name="datagram">May be changed in place.</param>
    PluginVerdict Egress(Span<byte> datagram);
}
