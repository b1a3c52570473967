namespace Lightway.Tunnel.Udp;

/// <summary>
/// The local address a datagram arrived on (IP_PKTINFO, IPV6_PKTINFO), so that replies of a socket bound to the wildcard
/// leave from the address the client knows. <see cref="Length"/> 0: not known, the kernel chooses.
/// </summary>
public readonly struct LocalAddress
{
    private readonly SocketAddressBytes _bytes; // 4 or 16 bytes in network order

    public LocalAddress(ReadOnlySpan<byte> address)
    {
        address.CopyTo(_bytes);
        Length = address.Length;
    }

    /// <summary>4, 16 or 0 bytes.</summary>
    public int Length { get; }

    public void CopyTo(Span<byte> destination) => ((ReadOnlySpan<byte>)_bytes)[..Length].CopyTo(destination);
}
