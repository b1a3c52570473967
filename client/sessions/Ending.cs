using System.Net;
using Lightway.Protocol;

namespace Lightway.Client.Sessions;

/// <summary>How far a connection came.</summary>
public enum Stage
{
    /// <summary>No datagram came back.</summary>
    Silent = 0,

    /// <summary>Datagrams came back; the handshake did not complete.</summary>
    Answered,

    /// <summary>The handshake was complete, the login was not.</summary>
    LinkUp,
    Online,
}

/// <summary>How an attempt to reach the server ended.</summary>
/// <param name="Server">The address that was tried.</param>
/// <param name="Reason">The protocol's name for it.</param>
/// <param name="Stage">How far it came.</param>
/// <param name="AfterMs">Milliseconds since it was started.</param>
/// <param name="Tls">The last failure of TLS, in the library's words.</param>
public sealed record Ending(IPEndPoint Server, TunnelError Reason, Stage Stage, long AfterMs, string Tls)
{
    /// <summary>Why the login was refused, as far as the server says so.</summary>
    public AuthRefusal Refusal { get; init; }

    /// <summary>
    /// The certificate that was refused, the server's own or one above it, in DER; empty: none was, or the library does not
    /// hand it out.
    /// </summary>
    public ReadOnlyMemory<byte> Certificate { get; init; }
}
