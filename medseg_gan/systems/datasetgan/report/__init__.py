"""The words of DatasetGAN's report: verdict, tables, charts, quality control, audit for copies."""
