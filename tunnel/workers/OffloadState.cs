namespace Lightway.Tunnel.Workers;

/// <summary>A part of the offload, and whether it is in use.</summary>
/// <param name="Part">Name for metrics.</param>
/// <param name="IsOn">Allowed, known to the kernel, and not refused within the last minute.</param>
public readonly record struct OffloadState(string Part, bool IsOn);
