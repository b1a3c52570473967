using Lightway.Tunnel.Paths;

namespace Lightway.Tunnel.Workers;

/// <summary>What a program adds to a worker: its tables, and its work once per second. Called on the worker's thread.</summary>
public interface IWorkerProgram : IRouter
{
    /// <summary>Called about once per second.</summary>
    void Tick(long now);

    /// <summary>The worker ends: say goodbye to the peers.</summary>
    void Stopping();
}
