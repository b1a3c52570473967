using Lightway.Server.Control;

namespace Lightway.Server.Observe;

/// <summary>Whether the server takes new clients, for load balancers. Safe from any thread.</summary>
public sealed class ServingState(Draining draining)
{
    private volatile bool _isServing;

    /// <summary>The workers run.</summary>
    public bool IsServing
    {
        get => _isServing;
        set => _isServing = value;
    }

    /// <summary>The operator wants no new clients here; those that are here stay.</summary>
    public bool IsDraining => draining.HasBegun;

    public bool IsReady => _isServing && !IsDraining;
}
