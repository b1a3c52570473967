using Microsoft.Extensions.Logging;

namespace Lightway.Hosting.Start;

/// <summary>Steps of a start that may succeed a little later.</summary>
public static class Retry
{
    /// <summary>Time between two attempts.</summary>
    public static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);

    /// <summary>Tries <paramref name="bind"/> up to <paramref name="attempts"/> times, and warns about each failure.</summary>
    /// <param name="wait">Waits between two attempts.</param>
    /// <exception cref="IOException">The last attempt has failed, too.</exception>
    public static T Bind<T>(int attempts, Func<T> bind, Action<TimeSpan> wait, ILogger log)
    {
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                return bind();
            }
            catch (IOException error) when (attempt < attempts)
            {
                ProgramLog.Warning(log, $"attempt {attempt} of {attempts} (bind_attempts): {error.Message}");
                wait(Pause);
            }
        }
    }
}
