// Draws one dashboard with Grafana's own components: window.draw(document) resolves when it is drawn.
//
// A document is {dashboard, values, range, panels, annotations}: the JSON of the dashboard, the values of its
// variables, from and to in milliseconds, for each id of a panel its data frames, and the runs of annotations. What a Grafana server adds when
// it loads a dashboard is added here: the defaults of a kind of panel, the lowest threshold, the defaults of fields.

import {
  FieldConfigOptionsRegistry,
  ThemeContext,
  VizOrientation,
  applyFieldOverrides,
  createTheme,
  dateTime,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  toDataFrame,
  transformDataFrame,
} from "@grafana/data";
import {
  BarGauge,
  BigValue,
  BigValueTextMode,
  Gauge,
  GlobalStyles,
  PanelChrome,
  Table,
  TimeSeries,
  VizRepeater,
} from "@grafana/ui";
import React from "react";
import { createRoot } from "react-dom/client";
import { flushSync } from "react-dom";
import { lastValueFrom } from "rxjs";

const COLUMNS = 24;
const ROW = 30; // Grafana's own: a unit of height is 30 px, with gaps of 8.
const GAP = 8;
const WIDTH = 1500;
const HEAD = 92;
const TIME_ZONE = "utc";
const theme = createTheme({ colors: { mode: "dark" } });

// What the plugins of 11.6 set where a dashboard says nothing.
const PALETTE = { mode: "palette-classic" };
const KINDS = {
  timeseries: {
    color: PALETTE,
    custom: {
      drawStyle: "line",
      lineInterpolation: "linear",
      lineWidth: 1,
      fillOpacity: 0,
      pointSize: 5,
      showPoints: "auto",
      spanNulls: false,
      stacking: { mode: "none", group: "A" },
      scaleDistribution: { type: "linear" },
      thresholdsStyle: { mode: "off" },
      axisBorderShow: false,
    },
  },
  stat: { color: { mode: "thresholds" } },
  gauge: { color: { mode: "thresholds" } },
  bargauge: { color: { mode: "thresholds" } },
  table: { color: { mode: "thresholds" }, custom: { align: "auto", cellOptions: { type: "auto" } } },
};

const FIELD_OPTIONS = ["unit", "min", "max", "decimals", "displayName", "noValue", "color", "thresholds", "mappings", "links"];
const CUSTOM_OPTIONS = [
  ...Object.keys(KINDS.timeseries.custom),
  "align", "width", "hidden", "cellOptions", "filterable", "axisPlacement", "axisLabel", "axisSoftMax", "axisSoftMin",
  "gradientMode", "hideFrom", "inspect", "fillBelowTo", "lineStyle",
];

function option(path, isCustom) {
  return {
    id: isCustom ? `custom.${path}` : path,
    path,
    name: path,
    isCustom,
    process: (value) => value,
    shouldApply: () => true,
  };
}

const registry = new FieldConfigOptionsRegistry(() => [
  ...FIELD_OPTIONS.map((path) => option(path, false)),
  ...CUSTOM_OPTIONS.map((path) => option(path, true)),
]);
standardFieldConfigEditorRegistry.setInit(() => FIELD_OPTIONS.map((path) => option(path, false)));
// One stands there under two names.
const transformers = new Map(Object.values(standardTransformers).map((one) => [one.id, one]));
standardTransformersRegistry.setInit(() =>
  [...transformers.values()].map((one) => ({ id: one.id, name: one.name, transformation: one })),
);

function replacer(values) {
  return (text) => String(text ?? "").replace(/\$\{(\w+)\}|\$(\w+)/g, (all, a, b) => values[a ?? b] ?? all);
}

function fieldConfig(panel) {
  const written = panel.fieldConfig ?? { defaults: {} };
  const kind = KINDS[panel.type] ?? KINDS.table;
  const defaults = {
    ...kind,
    ...written.defaults,
    custom: { ...kind.custom, ...written.defaults.custom },
  };
  if (defaults.thresholds) {
    const steps = defaults.thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity }));
    defaults.thresholds = { ...defaults.thresholds, steps };
  }
  return { defaults, overrides: written.overrides ?? [] };
}

async function framesOf(panel, raw, values) {
  let frames = raw.map((one) => toDataFrame(one));
  if (panel.type === "logs") {
    const widths = { Time: 190, level: 80, instance: 150, event: 180 };
    frames[0].fields.forEach((field) => (field.config.custom = { width: widths[field.name] }));
  }
  if (panel.transformations?.length) {
    frames = await lastValueFrom(
      transformDataFrame(panel.transformations, frames, { interpolate: replacer(values) }),
    );
  }
  return applyFieldOverrides({
    data: frames,
    fieldConfig: fieldConfig(panel),
    fieldConfigRegistry: registry,
    replaceVariables: replacer(values),
    theme,
    timeZone: TIME_ZONE,
  });
}

// A dashed line where a run begins, and a bar below the graph for its length, as Grafana draws annotations.
function drawAnnotations(plot, annotations) {
  const { ctx, bbox } = plot;
  const place = (when) => Math.min(Math.max(plot.valToPos(when, "x", true), bbox.left), bbox.left + bbox.width);
  ctx.save();
  for (const one of annotations) {
    ctx.strokeStyle = ctx.fillStyle = theme.visualization.getColorByName(one.color);
    ctx.globalAlpha = 0.7;
    ctx.setLineDash([4, 4]);
    ctx.beginPath();
    ctx.moveTo(place(one.from), bbox.top);
    ctx.lineTo(place(one.from), bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillRect(place(one.from), bbox.top + bbox.height, Math.max(place(one.to) - place(one.from), 3), 3);
  }
  ctx.restore();
}

function Graph({ panel, frames, range, annotations, width, height }) {
  const addHook = (config) => {
    config.addHook("draw", (plot) => drawAnnotations(plot, annotations));
    return null;
  };
  return (
    <TimeSeries
      frames={frames}
      timeRange={range}
      timeZone={TIME_ZONE}
      width={width}
      height={height}
      legend={{ showLegend: true, displayMode: "list", placement: "bottom", calcs: [], ...panel.options?.legend }}
      options={panel.options}
    >
      {addHook}
    </TimeSeries>
  );
}

function Values({ panel, frames, width, height, values, draw, orientation, sparkline }) {
  const getValues = () =>
    getFieldDisplayValues({
      fieldConfig: fieldConfig(panel),
      reduceOptions: panel.options.reduceOptions,
      replaceVariables: replacer(values),
      theme,
      data: frames,
      sparkline,
      timeZone: TIME_ZONE,
    });
  return (
    <VizRepeater
      getValues={getValues}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={draw}
      width={width}
      height={height}
      source={frames}
      itemSpacing={panel.type === "bargauge" ? 10 : 3}
      renderCounter={0}
      autoGrid={panel.type !== "bargauge"}
      orientation={orientation}
    />
  );
}

function Stat(props) {
  const { options } = props.panel;
  const draw = ({ value, alignmentFactors, width, height, count }) => (
    <BigValue
      value={value.display}
      count={count}
      sparkline={value.sparkline}
      colorMode={options.colorMode ?? "value"}
      graphMode={options.graphMode ?? "area"}
      justifyMode={options.justifyMode ?? "auto"}
      textMode={options.textMode ?? BigValueTextMode.Auto}
      alignmentFactors={alignmentFactors}
      width={width}
      height={height}
      theme={theme}
    />
  );
  const orientation = options.orientation ?? VizOrientation.Auto;
  return <Values {...props} draw={draw} orientation={orientation} sparkline={options.graphMode !== "none"} />;
}

function Bars(props) {
  const { options } = props.panel;
  const orientation = options.orientation === "vertical" ? VizOrientation.Vertical : VizOrientation.Horizontal;
  const draw = ({ value, alignmentFactors, width, height }) => (
    <BarGauge
      value={value.display}
      field={value.field}
      text={options.text}
      display={value.view?.getFieldDisplayProcessor(value.colIndex)}
      displayMode={options.displayMode ?? "gradient"}
      valueDisplayMode={options.valueMode ?? "color"}
      namePlacement={options.namePlacement ?? "auto"}
      showUnfilled={options.showUnfilled ?? true}
      alignmentFactors={alignmentFactors}
      orientation={orientation}
      width={width}
      height={height}
      theme={theme}
      itemSpacing={10}
      lcdCellWidth={12}
    />
  );
  return <Values {...props} draw={draw} orientation={orientation} />;
}

function Dial(props) {
  const { options } = props.panel;
  const draw = ({ value, width, height }) => (
    <Gauge
      value={value.display}
      field={value.field}
      text={options.text}
      showThresholdLabels={options.showThresholdLabels ?? false}
      showThresholdMarkers={options.showThresholdMarkers ?? true}
      width={width}
      height={height}
      theme={theme}
    />
  );
  return <Values {...props} draw={draw} orientation={options.orientation ?? VizOrientation.Auto} />;
}

function Rows({ panel, frames, width, height }) {
  if (!frames.length || !frames[0].length) {
    return <NoData />;
  }
  return <Table data={frames[0]} width={width} height={height} cellHeight="sm" resizable={false} initialSortBy={panel.options?.sortBy} />;
}

function NoData() {
  return <div className="no-data" style={{ padding: 16, color: theme.colors.text.secondary }}>No data</div>;
}

const DRAWN = { timeseries: Graph, stat: Stat, bargauge: Bars, gauge: Dial, table: Rows, logs: Rows };

function boxOf({ x, y, w, h }) {
  const unit = (WIDTH - GAP) / COLUMNS;
  return {
    left: GAP + x * unit,
    top: HEAD + y * (ROW + GAP),
    width: w * unit - GAP,
    height: h * (ROW + GAP) - GAP,
  };
}

function Panel({ panel, frames, range, values, annotations }) {
  const box = boxOf(panel.gridPos);
  const Drawn = frames.some((frame) => frame.length) ? DRAWN[panel.type] : NoData;
  return (
    <div style={{ position: "absolute", ...box }}>
      <PanelChrome title={replacer(values)(panel.title)} description={panel.description} width={box.width} height={box.height}>
        {(width, height) => <Drawn {...{ panel, frames, range, values, annotations, width, height }} />}
      </PanelChrome>
    </div>
  );
}

function Row({ panel }) {
  const style = { position: "absolute", ...boxOf(panel.gridPos), ...theme.typography.h5, lineHeight: "30px" };
  return <div style={style}>{panel.title}</div>;
}

function Variable({ name, value }) {
  const border = `1px solid ${theme.colors.border.medium}`;
  const part = { border, padding: "3px 8px", borderRadius: 2, ...theme.typography.bodySmall };
  return (
    <span style={{ marginRight: 12 }}>
      <span style={{ ...part, background: theme.colors.background.secondary }}>{name}</span>
      <span style={part}>{value}</span>
    </span>
  );
}

function Head({ dashboard, values, range }) {
  const shown = (dashboard.templating?.list ?? []).filter((one) => one.hide !== 2 && one.name in values);
  const span = `${range.from.utc().format("YYYY-MM-DD HH:mm:ss")} to ${range.to.utc().format("HH:mm:ss")} UTC`;
  return (
    <div style={{ position: "absolute", left: GAP, top: GAP, width: WIDTH - 2 * GAP }}>
      <div style={{ ...theme.typography.h3, marginBottom: 10 }}>
        {dashboard.title}
        <span style={{ float: "right", ...theme.typography.bodySmall, color: theme.colors.text.secondary }}>{span}</span>
      </div>
      {shown.map((one) => (
        <Variable key={one.name} name={one.label || one.name} value={values[one.name] === ".*" ? "All" : values[one.name]} />
      ))}
    </div>
  );
}

function Dashboard({ dashboard, values, range, annotations, drawn }) {
  const bottom = Math.max(...drawn.map(({ panel }) => panel.gridPos.y + panel.gridPos.h));
  const style = { position: "relative", width: WIDTH, height: HEAD + bottom * (ROW + GAP) + GAP, background: theme.colors.background.canvas };
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div id="dashboard" style={style}>
        <Head dashboard={dashboard} values={values} range={range} />
        {drawn.map(({ panel, frames }) =>
          panel.type === "row" ? (
            <Row key={panel.id} panel={panel} />
          ) : (
            <Panel key={panel.id} {...{ panel, frames, range, values, annotations }} />
          ),
        )}
      </div>
    </ThemeContext.Provider>
  );
}

let root;

async function drawOnce({ dashboard, values, range, panels, annotations }) {
  const from = dateTime(range.from);
  const to = dateTime(range.to);
  const drawn = [];
  for (const panel of dashboard.panels) {
    drawn.push({ panel, frames: panel.type === "row" ? [] : await framesOf(panel, panels[panel.id] ?? [], values) });
  }
  root?.unmount();
  root = createRoot(document.getElementById("root"));
  const shown = <Dashboard {...{ dashboard, values, annotations, drawn }} range={{ from, to, raw: { from, to } }} />;
  flushSync(() => root.render(shown));
}

window.draw = async (given) => {
  await drawOnce(given);
  // Canvases measure their texts: once the font is there, all is drawn again. From new frames, because
  // components mark those that they have filled with gaps.
  await document.fonts.ready;
  await drawOnce(given);
};
