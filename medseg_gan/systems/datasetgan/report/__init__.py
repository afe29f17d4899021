"""DatasetGAN's own words on its report: verdict, tables, charts, quality control, audit for copies."""
