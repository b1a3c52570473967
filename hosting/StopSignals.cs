using System.Runtime.InteropServices;

namespace Lightway.Hosting;

/// <summary>Runs an action on SIGINT and SIGTERM instead of ending the process at once.</summary>
public sealed class StopSignals : IDisposable
{
    private readonly PosixSignalRegistration[] _signals;

    public StopSignals(Action stop) =>
        _signals = [
            .. new[] { PosixSignal.SIGINT, PosixSignal.SIGTERM }.Select(signal =>
                PosixSignalRegistration.Create(
                    signal,
                    context =>
                    {
                        context.Cancel = true;
                        stop();
                    }
                )
            ),
        ];

    public void Dispose()
    {
        foreach (var signal in _signals)
        {
            signal.Dispose();
        }
    }
}
