// Command okmon-prometheus is the writing half of Prometheus' agent mode: its
// configuration file, write-ahead log and remote-write queues, without scraping.
// It is here because Debian's Prometheus knows neither remote write 2.0 nor,
// though it reads them, headers in remote_write.
//
// It appends orders{shop="north"} 5 and orders{shop="south"} 7 five times a
// second until it is told to end.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/agent"
)

const appendEvery = 200 * time.Millisecond

func main() {
	file := flag.String("config", "", "the `file` that prometheus.yml would be")
	folder := flag.String("data", "", "the `folder` of the write-ahead log")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *file, *folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file, folder string) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg, err := config.LoadFile(file, true, logger)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	startTime := func() (int64, error) { return time.Now().UnixMilli(), nil }
	storage := remote.NewStorage(logger, registry, startTime, folder, time.Second, nil, false)
	defer storage.Close()
	db, err := agent.Open(logger, registry, storage, folder, agent.DefaultOptions())
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetWriteNotified(storage)
	if err := storage.ApplyConfig(cfg); err != nil {
		return err
	}

	ticks := time.NewTicker(appendEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticks.C:
			app := db.Appender(ctx)
			for shop, value := range map[string]float64{"north": 5, "south": 7} {
				series := labels.FromStrings("__name__", "orders", "shop", shop)
				if _, err := app.Append(0, series, now.UnixMilli(), value); err != nil {
					return err
				}
			}
			if err := app.Commit(); err != nil {
				return err
			}
		}
	}
}
