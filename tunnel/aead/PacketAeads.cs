using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Aead;

/// <summary>Which library seals and opens packets.</summary>
public enum AeadChoice
{
    /// <summary>The fastest one that is there and proves itself.</summary>
    Auto = 0,

    WolfCrypt,

    /// <summary>Intel Multi-Buffer Crypto for IPsec.</summary>
    IpsecMb,
}

/// <summary>Makes ciphers for packets, by the library that was chosen at start. Any thread.</summary>
public sealed class PacketAeads
{
    public const int KeySize = 32;
    public const int IvSize = 12;
    public const int TagSize = 16;

    /// <summary>wolfCrypt, which every build has.</summary>
    public static readonly PacketAeads WolfCrypt = new(null);

    private readonly IpsecMb? _accelerator;

    private PacketAeads(IpsecMb? accelerator) => _accelerator = accelerator;

    /// <summary>The library and what it uses of the processor, for the log.</summary>
    public string Name => _accelerator?.Name ?? "wolfCrypt";

    /// <summary>For the contexts of DTLS and TLS: who seals their records. wolfCrypt itself, or <see cref="RecordAccelerator"/>.</summary>
    public int Device { get; private init; } = WolfSsl.INVALID_DEVID;

    /// <summary>
    /// Chooses a library. Before another one than wolfCrypt is used, the two must agree: see <see cref="AeadCrossCheck"/>.
    /// </summary>
    /// <param name="remark">Why the faster library is not used, for the log; null if it is, or was not asked for.</param>
    /// <exception cref="TlsException">The library that was asked for by name can't be used, or wolfCrypt is wrong; says why.</exception>
    public static PacketAeads Choose(AeadChoice choice, out string? remark)
    {
        remark = null;
        _ = WolfSslLibrary.EnsureUsable(); // wolfCrypt is the judge
        if (choice == AeadChoice.WolfCrypt)
        {
            return WolfCrypt;
        }
        if (IpsecMb.TryLoad(out var problem) is { } library)
        {
            var candidate = new PacketAeads(library);
            if (AeadCrossCheck.Compare(WolfCrypt.Create, candidate.Create) is not { } difference)
            {
                if (RecordAccelerator.TryRegister(library) is not { } reason)
                {
                    return new PacketAeads(library) { Device = RecordAccelerator.DeviceId };
                }
                remark = $"DTLS and TLS stay with wolfCrypt: {reason}";
                return candidate;
            }
            problem = $"{library.Name} is not used, as it differs from wolfCrypt: {difference}";
        }
        if (choice == AeadChoice.IpsecMb)
        {
            throw new TlsException($"aead: ipsec-mb can't be used: {problem}");
        }
        remark = problem;
        return WolfCrypt;
    }

    /// <summary>Null if the library has no memory.</summary>
    public IPacketAead? TryCreate(ReadOnlySpan<byte> key)
    {
        try
        {
            return Create(key);
        }
        catch (TlsException)
        {
            return null;
        }
    }

    private IPacketAead Create(ReadOnlySpan<byte> key) =>
        _accelerator is null ? new WolfCryptAead(key) : new IpsecMbAead(_accelerator, key);
}
