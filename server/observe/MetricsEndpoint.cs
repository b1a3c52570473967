using System.Buffers;
using System.Globalization;
using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace Lightway.Server.Observe;

/// <summary>
/// Metrics, health and the status page by HTTP, for the operator's own network. It reads no configuration of its own, logs
/// nothing and handles no signal; what one client of it may cost is bounded.
/// </summary>
public sealed class MetricsEndpoint : IDisposable
{
    private const int MaxConnections = 64;
    private const int MaxListeners = 8; // status pages that are open
    private const int MaxRequestLine = 1024; // bytes
    private const int MaxHeaders = 8192; // bytes
    private static readonly TimeSpan s_headerTime = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_eventTime = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_longestWatch = TimeSpan.FromMinutes(10); // then the page connects again
    private static readonly TimeSpan s_stopTime = TimeSpan.FromSeconds(1);

    private readonly ServerView _view;
    private readonly MetricsRegistry _registry;
    private readonly WebApplication _app;
    private readonly CancellationTokenSource _stopping = new();
    private int _listeners;

    private MetricsEndpoint(IPEndPoint address, ServerView view)
    {
        _view = view;
        _registry = new MetricsRegistry(view);
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.Services.AddSingleton<IHostLifetime, NoLifetime>();
        builder.WebHost.UseKestrelCore().ConfigureKestrel(options => Configure(options, address));
        _app = builder.Build();
        _app.Run(AnswerAsync);
    }

    /// <exception cref="IOException">The address can't be listened on.</exception>
    public static IDisposable Start(IPEndPoint address, ServerView view)
    {
        var endpoint = new MetricsEndpoint(address, view);
        try
        {
            endpoint._app.StartAsync().GetAwaiter().GetResult();
            return endpoint;
        }
        catch (Exception error) when (error is IOException or System.Net.Sockets.SocketException)
        {
            endpoint.Dispose();
            throw new IOException($"metrics_address: {error.Message}", error);
        }
    }

    public void Dispose()
    {
        _stopping.Cancel();
        using var limit = new CancellationTokenSource(s_stopTime);
        try
        {
            _app.StopAsync(limit.Token).GetAwaiter().GetResult();
        }
        catch (OperationCanceledException)
        {
            // somebody reads slowly: the process ends anyway
        }
        ((IDisposable)_app).Dispose();
        _stopping.Dispose();
    }

    private static void Configure(KestrelServerOptions options, IPEndPoint address)
    {
        options.AddServerHeader = false;
        options.Limits.MaxConcurrentConnections = MaxConnections;
        options.Limits.MaxConcurrentUpgradedConnections = 0;
        options.Limits.MaxRequestBodySize = 0;
        options.Limits.MaxRequestLineSize = MaxRequestLine;
        options.Limits.MaxRequestHeadersTotalSize = MaxHeaders;
        options.Limits.RequestHeadersTimeout = s_headerTime;
        options.Listen(address, listen => listen.Protocols = HttpProtocols.Http1);
    }

    private Task AnswerAsync(HttpContext context)
    {
        var response = context.Response;
        response.Headers.CacheControl = "no-store";
        response.Headers.XContentTypeOptions = "nosniff";
        response.Headers["Referrer-Policy"] = "no-referrer";
        if (!HttpMethods.IsGet(context.Request.Method) && !HttpMethods.IsHead(context.Request.Method))
        {
            response.Headers.Allow = "GET, HEAD";
            return TextAsync(context, StatusCodes.Status405MethodNotAllowed, "only GET and HEAD are served here\n");
        }
        return context.Request.Path.Value switch
        {
            "/metrics" => MetricsAsync(context),
            "/healthz" => HealthAsync(context),
            "/readyz" => ReadyAsync(context),
            "/" => PageAsync(context),
            "/events" => EventsAsync(context),
            _ => TextAsync(
                context,
                StatusCodes.Status404NotFound,
                "not here; there are /, /metrics, /healthz and /readyz\n"
            ),
        };
    }

    private Task MetricsAsync(HttpContext context)
    {
        context.Response.ContentType = MetricsRegistry.ContentType;
        return IsHead(context)
            ? Task.CompletedTask
            : _registry.WriteAsync(context.Response.Body, context.RequestAborted);
    }

    private Task HealthAsync(HttpContext context) =>
        _view.StuckWorker is var stuck and >= 0
            ? TextAsync(
                context,
                StatusCodes.Status503ServiceUnavailable,
                string.Create(CultureInfo.InvariantCulture, $"worker {stuck} has done nothing for 10 seconds\n")
            )
            : TextAsync(context, StatusCodes.Status200OK, "ok\n");

    private Task ReadyAsync(HttpContext context) =>
        _view.State.IsReady ? TextAsync(context, StatusCodes.Status200OK, "ready\n")
        : _view.State.IsDraining ? TextAsync(context, StatusCodes.Status503ServiceUnavailable, "draining\n")
        : TextAsync(context, StatusCodes.Status503ServiceUnavailable, "not serving\n");

    private static Task PageAsync(HttpContext context)
    {
        context.Response.ContentType = "text/html; charset=utf-8";
        context.Response.Headers.ContentSecurityPolicy = StatusPage.Policy;
        return BytesAsync(context, StatusPage.Html);
    }

    /// <summary>A sample per second, until the page is closed (server-sent events, HTML Standard section 9.2).</summary>
    private async Task EventsAsync(HttpContext context)
    {
        if (Interlocked.Increment(ref _listeners) > MaxListeners)
        {
            Interlocked.Decrement(ref _listeners);
            context.Response.Headers.RetryAfter = "10";
            await TextAsync(context, StatusCodes.Status503ServiceUnavailable, "too many status pages are open\n");
            return;
        }
        try
        {
            context.Response.ContentType = "text/event-stream";
            if (!IsHead(context))
            {
                await WatchAsync(context);
            }
        }
        catch (OperationCanceledException)
        {
            // the page was closed, has watched for long enough, or the server stops
        }
        finally
        {
            Interlocked.Decrement(ref _listeners);
        }
    }

    private async Task WatchAsync(HttpContext context)
    {
        using var end = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, _stopping.Token);
        end.CancelAfter(s_longestWatch);
        using var clock = new PeriodicTimer(s_eventTime);
        var sample = new ArrayBufferWriter<byte>();
        do
        {
            sample.ResetWrittenCount();
            StatusSample.Write(_view, sample);
            await context.Response.Body.WriteAsync(sample.WrittenMemory, end.Token);
            await context.Response.Body.FlushAsync(end.Token);
        } while (await clock.WaitForNextTickAsync(end.Token));
    }

    private static bool IsHead(HttpContext context) => HttpMethods.IsHead(context.Request.Method);

    private static Task TextAsync(HttpContext context, int status, string text)
    {
        context.Response.StatusCode = status;
        context.Response.ContentType = "text/plain; charset=utf-8";
        return BytesAsync(context, System.Text.Encoding.UTF8.GetBytes(text));
    }

    private static Task BytesAsync(HttpContext context, byte[] bytes)
    {
        context.Response.ContentLength = bytes.Length;
        return IsHead(context)
            ? Task.CompletedTask
            : context.Response.Body.WriteAsync(bytes, context.RequestAborted).AsTask();
    }

    /// <summary>Signals are the server's.</summary>
    private sealed class NoLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
