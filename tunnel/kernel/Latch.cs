namespace Lightway.Tunnel.Kernel;

/// <summary>
/// A capability that the kernel may refuse: after a refusal it is off for a minute, then it is tried again, because the
/// cause may be gone by then. The default value is on.
/// </summary>
/// <remarks>Law: it is on exactly when <see cref="Ticks"/> ticks or more have passed since the last refusal.</remarks>
public struct Latch
{
    /// <summary>Ticks, of about a second each, for which a refusal turns it off.</summary>
    public const int Ticks = 60;

    private int _left; // ticks until it is tried again

    public readonly bool IsOn => _left == 0;

    /// <summary>The kernel has refused.</summary>
    public void TurnOff() => _left = Ticks;

    /// <summary>Call about once per second.</summary>
    public void Tick() => _left = Math.Max(0, _left - 1);
}

/// <summary>Something that the kernel may refuse at run time, each with a latch of its own.</summary>
public enum Capability
{
    UdpGsoIPv4,
    UdpGsoIPv6,
    TunTcpSuperpackets,
    TunUdpSuperpackets,
}

/// <summary>The kernel has refused a capability, which is off now.</summary>
/// <param name="Capability">The capability.</param>
/// <param name="Errno">The error that the system call returned.</param>
public readonly record struct CapabilityRefused(Capability Capability, int Errno);
