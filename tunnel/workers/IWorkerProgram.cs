using Lightway.Tunnel.Paths;
using Lightway.Tunnel.Tcp;

namespace Lightway.Tunnel.Workers;

/// <summary>What a program adds to a worker: its tables, and its work once per second. Called on the worker's thread.</summary>
public interface IWorkerProgram : IRouter
{
    /// <summary>Called about once per second.</summary>
    void Tick(long now);

    /// <summary>Takes connections that wait, a limited number of them. Called only for a worker that listens.</summary>
    /// <returns>False: there are no descriptors left; they wait until the next tick.</returns>
    bool AcceptFrom(StreamListener listener, long now) => true;

    /// <summary>The worker ends: say goodbye to the peers.</summary>
    void Stopping();
}
