/// The status page in a browser, during a download: it shows what happens, in both colour schemes, on a phone, without a word
/// on the console. With LIGHTWAY_SCREENSHOT=FILE a picture of it is kept there.
module Lightway.Tests.StatusPageTests

open System
open System.IO
open System.Net
open System.Net.Http
open System.Net.Sockets
open System.Text
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks
open Lightway.Tests.MetricsTests
open OpenQA.Selenium
open OpenQA.Selenium.Chrome

let private settings =
    { Expresslane = true
      Offload = true
      ServerKeys = [ "metrics_address", "9100"; "statistics_reporting_interval", "1s" ]
      ClientKeys = [] }

/// The body, with a URL of the page of a server with two clients.
let private withPage (body: Topology -> Vpn -> Forward -> unit) =
    needsRoot ()
    use topology = Topology.Create 2
    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    vpn.Start()
    use forward = new Forward(topology.Server, 9100)
    body topology vpn forward

/// A browser that knows no host but this one; `folder` is its own.
let private startBrowser (folder: string) : ChromeDriver =
    let driver = needsProgram "chromedriver" "chromium-driver"
    let options = ChromeOptions(BinaryLocation = needsProgram "chromium" "chromium")

    for argument in
        [ "--headless=new"
          "--no-sandbox" // for root
          "--disable-gpu"
          "--disable-dev-shm-usage"
          "--disable-background-networking"
          "--disable-component-update"
          "--no-first-run"
          "--hide-scrollbars"
          "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
          $"--user-data-dir={folder}" ] do
        options.AddArgument argument

    options.SetLoggingPreference(LogType.Browser, LogLevel.All)

    let service =
        ChromeDriverService.CreateDefaultService(Path.GetDirectoryName driver, Path.GetFileName driver)

    service.SuppressInitialDiagnosticInformation <- true
    new ChromeDriver(service, options, TimeSpan.FromMinutes 2.)

/// The driver listens on a port that was free a moment ago: if somebody has taken it, it fails, and is started again.
let private openBrowser (folder: string) : ChromeDriver =
    let rec attempt left =
        try
            startBrowser (Path.Combine(folder, $"browser{left}"))
        with :? WebDriverException when left > 1 ->
            attempt (left - 1)

    attempt 3

let private command (browser: ChromeDriver) (name: string) (parameters: (string * obj) list) =
    browser.ExecuteCdpCommand(name, Collections.Generic.Dictionary(dict parameters)) |> ignore

let private resize browser (width: int) (height: int) (isPhone: bool) =
    command
        browser
        "Emulation.setDeviceMetricsOverride"
        [ "width", box width; "height", box height; "deviceScaleFactor", box 1; "mobile", box isPhone ]

let private scheme browser (name: string) =
    command
        browser
        "Emulation.setEmulatedMedia"
        [ "features",
          box [| Collections.Generic.Dictionary(dict [ "name", box "prefers-color-scheme"; "value", box name ]) |] ]

let private ask (browser: ChromeDriver) (script: string) : obj = browser.ExecuteScript script

let private text (browser: ChromeDriver) (id: string) : string =
    ask browser $"return document.getElementById('{id}').textContent" :?> string

let private await what condition =
    Expect.isTrue (Wait.until (TimeSpan.FromSeconds 60.) condition) what

/// What a script says, once the page is as it should be.
let private settles (browser: ChromeDriver) (script: string) (expected: obj) (what: string) =
    Wait.until (TimeSpan.FromSeconds 20.) (fun () -> ask browser script = expected) |> ignore
    Expect.equal (ask browser script) expected what

/// Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, success criterion 1.4.3).
let private faint =
    """
    const luminance = colour => {
      const [r, g, b] = colour.match(/[\d.]+/g).map(Number).slice(0, 3)
        .map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
      return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = node => {
      for (; node; node = node.parentElement) {
        const colour = getComputedStyle(node).backgroundColor;
        if (!/, 0\)$/.test(colour)) return colour;
      }
      return 'rgb(255, 255, 255)';
    };
    const found = [];
    for (const node of document.body.querySelectorAll('*')) {
      if (!node.checkVisibility() || ![...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())) continue;
      const [high, low] = [luminance(getComputedStyle(node).color), luminance(behind(node))].sort((a, b) => b - a);
      if ((high + .05) / (low + .05) < 4.5) found.push(`${node.tagName} ${node.textContent}: ${getComputedStyle(node).color} on ${behind(node)}`);
    }
    return found.join('\n');
    """

/// Tables without a name or heads of columns and rows, charts without a text.
let private nameless =
    """
    return [
      ...[...document.querySelectorAll('table')].filter(table => !document.getElementById(table.getAttribute('aria-labelledby'))
        || !table.querySelector('thead th[scope=col]') || [...table.tBodies[0].rows].some(row => row.cells[0].scope !== 'row')),
      ...[...document.querySelectorAll('svg[role=img]')].filter(chart => !chart.getAttribute('aria-label')),
      ...(document.documentElement.lang && document.title ? [] : [document.documentElement])
    ].map(node => node.outerHTML).join('\n');
    """

let private picture = Environment.GetEnvironmentVariable "LIGHTWAY_SCREENSHOT"
let private isPosing = not (String.IsNullOrEmpty picture)

/// Two minutes of traffic for the picture.
let private pose (topology: Topology) (remote: Listener) =
    let random = Random 3
    let second = topology.Clients[1]

    let uploads =
        Netns.start second (fun () ->
            for _ in 1..12 do
                let rate = 2_000_000 + random.Next 6_000_000
                Transfer.pacedUpload remote second (int64 rate * 9L) (uint32 rate) |> ignore)

    for _ in 1..12 do
        let rate = 20_000_000 + random.Next 30_000_000
        Transfer.pacedDownload remote topology.Client (int64 rate * 9L) (uint32 rate) |> ignore

    uploads.GetAwaiter().GetResult()

let private keepPicture (browser: ChromeDriver) (name: string) =
    let shot =
        Collections.Generic.Dictionary(dict [ "captureBeyondViewport", box true ])

    let result =
        browser.ExecuteCdpCommand("Page.captureScreenshot", shot) :?> Collections.Generic.Dictionary<string, obj>

    File.WriteAllBytes(picture.Replace(".png", $"-{name}.png"), Convert.FromBase64String(string result["data"]))

let private inBrowser =
    test "it shows a download, in both colour schemes and on a phone, and the console stays empty" {
        withPage (fun topology vpn forward ->
            use browser = openBrowser topology.Folder

            let remote =
                { Netns = topology.RemoteHost
                  Address = Topology.Remote }

            try
                resize browser 1100 900 false
                scheme browser "light"
                browser.Navigate().GoToUrl(forward.Url + "/")
                await "it is connected" (fun () -> text browser "state" = "Ready" && text browser "online" = "2")
                await "rates are there" (fun () -> text browser "down-unit" = "kbit/s")

                if isPosing then
                    pose topology remote

                // Parts of five seconds, for as long as it takes to look at all.
                use isSeen = new CancellationTokenSource()

                let download =
                    Netns.start topology.Client (fun () ->
                        while not isSeen.IsCancellationRequested do
                            expectIntact
                                (Transfer.pacedDownload remote topology.Client (megabytes 60L) 12_000_000u)
                                (megabytes 60L))

                let number (id: string) =
                    match Double.TryParse(text browser id, Globalization.CultureInfo.InvariantCulture) with
                    | true, value -> value
                    | _ -> 0.

                await "throughput" (fun () -> text browser "down-unit" = "Mbit/s" && number "down" > 50.)

                await "the numbers change" (fun () ->
                    let before = text browser "down"
                    Thread.Sleep 1_200
                    text browser "down" <> before)

                await "segments per send" (fun () -> number "batch" > 2.)

                await "the chart has points" (fun () ->
                    let line =
                        ask browser "return document.querySelector('#down-chart .stroke').getAttribute('d')"

                    (string line).Split('L').Length > 4)

                let rows (id: string) =
                    ask browser $"return document.getElementById('{id}').rows.length" :?> int64

                Expect.equal (rows "workers") (int64 Environment.ProcessorCount) "workers"
                Expect.equal (rows "offload") 7L "parts of the offload"
                Expect.equal (rows "uses") 3L "windows"
                Expect.equal (text browser "sessions-note") "2 since start" "sessions"

                for name in [ "light"; "dark" ] do
                    scheme browser name
                    settles browser faint (box "") $"contrast, {name}"

                    for width, height in [ 1100, 900; 390, 844 ] do
                        resize browser width height (width = 390)

                        settles
                            browser
                            "return document.documentElement.scrollWidth"
                            (box (int64 width))
                            $"no part is wider than {width} pixels"

                        if isPosing then
                            keepPicture browser $"{name}-{width}"

                settles browser nameless (box "") "tables and charts have names"
                isSeen.Cancel()
                download.GetAwaiter().GetResult()
                vpn.Server.Stop() |> ignore
                await "the end is seen" (fun () -> text browser "state" = "No connection")

                // The last lines are about the connection that the server has ended.
                let said =
                    browser.Manage().Logs.GetLog LogType.Browser
                    |> Seq.filter (fun line -> not (line.Message.Contains "/events"))
                    |> Seq.map _.Message
                    |> List.ofSeq

                Expect.isEmpty said "console"
            finally
                browser.Quit())
    }

let private policy =
    test "its policy allows its own script and style only; it has nothing from elsewhere, and no user's name" {
        withPage (fun _ vpn forward ->
            use client = new HttpClient(BaseAddress = Uri forward.Url)
            let answer = client.GetAsync("/").Result
            let page = answer.Content.ReadAsStringAsync().Result
            let policy = Seq.exactlyOne (answer.Headers.GetValues "Content-Security-Policy")
            Expect.stringStarts policy "default-src 'none'; script-src 'sha256-" "the policy"
            Expect.isFalse (policy.Contains "unsafe") "nothing unsafe"

            for part in [ "src="; "@import"; "url("; "http:"; "https:"; " style="; " onclick="; "innerHTML" ] do
                Expect.isFalse
                    (page.Replace("http://www.w3.org/2000/svg", "").Replace("xmlns=", "").Contains part)
                    part

            use events = client.GetStreamAsync("/events").Result
            use reader = new StreamReader(events)
            let sample = reader.ReadLine()
            Expect.stringStarts sample "data: {\"t\":" "a sample"

            for secret in [ vpn.User; vpn.Password; Topology.ClientOutside; "10.125." ] do
                Expect.isFalse ((page + sample).Contains secret) "no user, no address")
    }

let private listeners =
    test "more than eight open pages are turned away, and one that is closed makes room" {
        withPage (fun _ vpn forward ->
            let listen () =
                let socket =
                    new Socket(
                        AddressFamily.InterNetwork,
                        SocketType.Stream,
                        ProtocolType.Tcp,
                        ReceiveTimeout = 30_000
                    )

                socket.Connect(IPAddress.Loopback, forward.Port)
                socket.Send(Encoding.ASCII.GetBytes "GET /events HTTP/1.1\r\nHost: a\r\n\r\n") |> ignore
                let buffer: byte[] = Array.zeroCreate 64
                let answer = Encoding.ASCII.GetString(buffer, 0, socket.Receive buffer)
                socket, Array.tryItem 1 (answer.Split ' ') |> Option.defaultValue ""

            let pages = [ for _ in 1..8 -> listen () ]
            Expect.equal (List.map snd pages) (List.replicate 8 "200") "eight"
            let ninth, code = listen ()
            ninth.Dispose()
            Expect.equal code "503" "the ninth"
            (fst pages.Head).Dispose()

            vpn.Server.Await (TimeSpan.FromSeconds 60.) "there is room" (fun () ->
                let page, code = listen ()
                page.Dispose()
                code = "200")

            for page, _ in pages do
                page.Dispose())
    }

let tests: Test =
    testSequenced (testList "Status page" [ policy; listeners; inBrowser ])
